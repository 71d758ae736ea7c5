"""Loads configurations: defaults < YAML file < `key=value`, into frozen dataclasses.

The only module that imports OmegaConf, which merges and checks values by the types of the dataclasses. Text is taken
literally: no interpolation, no resolvers, no environment variables.
"""

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, TypeVar, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from dmma_core.errors import ConfigError

Config = TypeVar("Config")
_LISTS = (list, tuple)
_MAX_YAML_NODES = 10_000


def load_config(cls: type[Config], file: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Build `cls` from its defaults, then `file`, then `overrides` ("key.sub=value").

    Text is taken literally and needs no escaping: `off`, 007, ${HOME}, ??? and, on the command line, "a: b". Quotes around
    it are removed. `null` means None, except on the command line for a setting that must be text. A mapping (such as
    `arms`) in a file replaces the default one; `arms.x.depth=…` changes one entry of it.

    Raises ConfigError for a missing file, an unknown key (with the nearest known ones), a value of the wrong type, and
    for nan and infinity.
    """
    merged = OmegaConf.structured(cls)
    if file is not None:
        merged = _merge(cls, merged, _read_file(Path(file)), str(file))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            example = f"{known_keys(cls)[0]}=…"
            raise ConfigError(f"{override!r} is not a setting.", remedy=f"Write key=value, for example {example}.")
        path = key.split(".")
        value = _read_setting(key, text, _type_of(cls, key))
        for part in reversed(path):
            value = {part: value}
        merged = _merge(cls, merged, value, "the command line", path)
    return _finish(cls, merged)


def config_from_dict(cls: type[Config], values: dict[str, Any], where: str) -> Config:
    """Build `cls` from plain values read back from an artefact; `where` names the artefact in errors.

    Raises ConfigError as load_config does.
    """
    return _finish(cls, _merge(cls, OmegaConf.structured(cls), values, where))


def config_to_dict(config: Any) -> dict[str, Any]:
    """Plain dict (str, int, float, bool, None, list, dict) of a config dataclass, for JSON or YAML."""
    plain = _plain(dataclasses.asdict(config))
    assert isinstance(plain, dict)
    return plain


def config_to_yaml(config: Any) -> str:
    """YAML text of a config; `load_config` reads it back to an equal object."""
    plain = config_to_dict(config)
    rare_line_breaks = re.search("[\x85\u2028\u2029]", json.dumps(plain, ensure_ascii=False))  # PyYAML would lose these
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=not rare_line_breaks, width=math.inf)


def known_keys(cls: type, prefix: str = "") -> list[str]:
    """All dotted keys that `cls` and its nested dataclasses accept; `<name>` stands for the key of a mapping's entry."""
    keys: list[str] = []
    for field in dataclasses.fields(cls):
        is_mapping = get_origin(field.type) is dict
        hint, name = (get_args(field.type)[1], f"{field.name}.<name>") if is_mapping else (field.type, field.name)
        nested = next((part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)), None)
        keys += known_keys(nested, f"{prefix}{name}.") if isinstance(nested, type) else [f"{prefix}{name}"]
    return keys


class _TextLoader(yaml.SafeLoader):
    """YAML of mappings, lists and strings: every scalar but null is a string; OmegaConf converts by the settings' types.

    Also raises YAMLError for a duplicate key, and for aliases that are recursive or expand to too many nodes.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  (the type is the base class's)
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.endswith((":null", ":str", ":seq", ":map"))
    }

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self._num_nodes: dict[yaml.Node | None, int] = {}  # in each complete node, aliases expanded

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if not is_alias:
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            nodes = chain.from_iterable(parts) if isinstance(node, yaml.MappingNode) else parts
            self._num_nodes[node] = 1 + sum(self._num_nodes[each] for each in nodes)
        if self._num_nodes.get(node, math.inf) > _MAX_YAML_NODES:
            raise yaml.YAMLError(f"it has more than {_MAX_YAML_NODES} values, or a recursive alias")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        if duplicates := [key for number, key in enumerate(keys) if key in keys[:number]]:
            raise yaml.MarkedYAMLError(problem=f"{duplicates[0]!r} is given twice", problem_mark=node.start_mark)
        return node


def _read_yaml(source: str) -> Any:
    try:
        return _TextLoader(source).get_single_data()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = _read_yaml(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no configuration file {path}.", remedy="Check the path given to --config."
        ) from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}.", remedy="Correct the file.") from error
    if values is None:  # an empty file
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings.", remedy="Write one 'key: value' a line.")
    return values


def _read_setting(key: str, text: str, hint: Any) -> Any:
    """Value of `text` in `key=text` for a setting of type `hint`. YAML would cut "take #2" and read "a: b" as a mapping."""
    if _without_none(hint) in (str, None):
        if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
            with suppress(yaml.YAMLError):
                if isinstance(unquoted := _read_yaml(text), str):
                    return unquoted
        return None if text == "null" and isinstance(hint, UnionType) else text
    try:
        return _read_yaml(text or "''")  # an empty value is the empty string, not null
    except yaml.YAMLError as error:
        raise ConfigError(
            f"Setting {key!r} has the unreadable value {text!r}.", remedy="Quote it, or correct it."
        ) from error


def _merge(cls: type, base: DictConfig, extra: dict[str, Any], where: str, edited: Sequence[str] = ()) -> Any:
    """Merge `extra` over `base`. `edited` is the key path of a single override: mappings on it keep their other entries."""
    _clear_mappings(base, extra, cls, edited)
    try:
        return OmegaConf.merge(base, _masked(extra, cls))
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        near = difflib.get_close_matches(key, known_keys(cls), n=2, cutoff=0.5)
        remedy = f"Did you mean {' or '.join(near)}?" if near else f"Known settings: {', '.join(known_keys(cls))}."
        raise ConfigError(f"Unknown setting {key!r} in {where}.", remedy=remedy) from error
    except (OmegaConfBaseException, TypeError, RecursionError) as error:  # TypeError: a list in place of a mapping
        first_line = _unmasked(str(error)).splitlines()[0].rstrip(".")
        key = str(getattr(error, "full_key", None) or ".".join(edited))
        remedy = f"Give a list: {key}=[…]." if get_origin(_type_of(cls, key)) in _LISTS else "Correct its value."
        raise ConfigError(
            f"{f'Setting {key!r}' if key else 'A setting'} in {where} cannot be used: {first_line}.", remedy=remedy
        ) from error


def _clear_mappings(base: Any, extra: Any, hint: Any, edited: Sequence[str] = ()) -> None:
    """Remove the entries of those mappings of `base` that `extra` replaces."""
    if not (isinstance(base, DictConfig) and isinstance(extra, dict)):
        return
    if get_origin(hint) is dict and not edited:
        with read_write(base), open_dict(base):
            base.clear()
        return
    for key in edited[:1] or extra:
        nested = base._get_node(key, validate_access=False)
        _clear_mappings(nested, extra[key], _below(hint, str(key)), edited[1:])


def _finish(cls: type[Config], merged: DictConfig) -> Config:
    """The dataclass of merged and checked values. Raises ConfigError if one is absent."""
    try:
        values = OmegaConf.to_container(merged, resolve=False, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", "") or "")
        raise ConfigError(
            f"Setting {key!r} of {cls.__name__} has no value.", remedy=f"Give it as {key}=… or in the YAML file."
        ) from error
    config = _build(cls, values, "")
    assert isinstance(config, cls)
    return config


def _build(hint: Any, value: Any, key: str) -> Any:
    """Plain values converted to the type `hint`. nan is refused here: comparisons with it are false, so checks miss it."""
    hint = _without_none(hint)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"Setting {key!r} is {value}.", remedy="Give a finite number.")
    if isinstance(value, dict):
        parts = {
            name: _build(_below(hint, str(name)), part, f"{key}.{name}" if key else str(name))
            for name, part in value.items()
        }
        return hint(**parts) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else parts
    if isinstance(value, _LISTS):
        items = [_build(_below(hint, ""), item, key) for item in value]
        return tuple(items) if get_origin(hint) is tuple else items
    return _unmasked(value) if isinstance(value, str) else value


def _masked(value: Any, hint: Any) -> Any:
    """Plain values with a NUL after every $ and ?, so that OmegaConf finds no interpolation and no "???"."""
    if isinstance(value, dict):
        return {key: _masked(part, _below(hint, str(key))) for key, part in value.items()}
    if isinstance(value, _LISTS):
        return [_masked(item, _below(hint, "")) for item in value]
    if isinstance(value, str) and _without_none(hint) is float:
        value = re.sub(r"\.(?=inf|nan)", "", value, flags=re.IGNORECASE)  # YAML's spelling
    return value.replace("$", "$\0").replace("?", "?\0") if isinstance(value, str) else value


def _unmasked(text: str) -> str:
    return text.replace("$\0", "$").replace("?\0", "?")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(item) for item in value] if isinstance(value, _LISTS) else value


def _type_of(cls: type, key: str) -> Any:
    """Type of the setting with the dotted name `key`; None if there is none."""
    hint: Any = cls
    for part in key.split("."):
        hint = _below(hint, part)
    return hint


def _below(hint: Any, key: str) -> Any:
    """Type of the setting `key` within one of type `hint`; None if there is none."""
    hint = _without_none(hint)
    if dataclasses.is_dataclass(hint):
        return next((field.type for field in dataclasses.fields(hint) if field.name == key), None)
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    return get_args(hint)[0] if get_origin(hint) in _LISTS else None


def _without_none(hint: Any) -> Any:
    """The type that `hint` allows besides None."""
    return next(part for part in get_args(hint) if part is not NoneType) if isinstance(hint, UnionType) else hint
