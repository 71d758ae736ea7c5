"""Configuration at the door: structured dataclass < YAML file < `key=value`; frozen dataclasses inside.

The only module that imports OmegaConf. Nothing below the door sees a DictConfig.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from dmma_core.errors import ConfigError

Config = TypeVar("Config")
_LISTS = (list, tuple)
_NO_TEXT_TAGS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")


def load_config(cls: type[Config], file: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Build `cls` from its defaults, then `file`, then `overrides` ("key.sub=value").

    A text is taken as it stands, whatever YAML would make of `off`, 007 or, on the command line, of "a: b"; quotes around
    it are removed. A table (a dict, such as the arms) that is given as a whole replaces the default one; `arms.x.depth=…`
    changes one entry of it.
    Raises ConfigError for a missing file, an unknown key (with the nearest known ones), a value of the wrong type, and
    for nan and infinity.
    """
    merged = OmegaConf.structured(cls)
    if file is not None:
        merged = _merge(cls, merged, _read_yaml(Path(file), cls), str(file))
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            example = f"{known_keys(cls)[0]}=…"
            raise ConfigError(f"{override!r} is not a setting.", remedy=f"Write key=value, for example {example}.")
        merged = _merge(cls, merged, _setting(cls, key, value), "the command line", key.split("."))
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", "") or "")
        raise ConfigError(
            f"Setting {key!r} of {cls.__name__} has no value.", remedy=f"Give it as {key}=… or in the YAML file."
        ) from error
    assert isinstance(config, cls)
    _require_finite(config_to_dict(config))
    return config


def config_from_dict(cls: type[Config], values: dict[str, Any], where: str) -> Config:
    """Build `cls` from plain values read back from an artefact; `where` names the artefact in errors."""
    config = OmegaConf.to_object(_merge(cls, OmegaConf.structured(cls), OmegaConf.create(values), where))
    assert isinstance(config, cls)
    return config


def config_to_dict(config: Any) -> dict[str, Any]:
    """Plain dict (str, int, float, bool, None, list, dict) of a config dataclass, ready for JSON or YAML."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def config_to_yaml(config: Any) -> str:
    """YAML text of a config; `load_config` reads it back to an equal object."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _setting(cls: type, key: str, value: str) -> DictConfig:
    """`key=value` as nested settings. YAML would cut "take #2" short and take "dog: bark" for a table."""
    hint = _type_of(cls, key)
    if _is_text(hint) and not (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        setting = OmegaConf.create({})
        OmegaConf.update(setting, key, None if value == "null" else value)
        return setting
    try:
        read = _quote_texts(value, hint) or "''"  # nothing: the empty text, not null
        return OmegaConf.from_dotlist([f"{key}={read}"])
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"Setting {key!r} has the unreadable value {value!r}.", remedy="Quote it, or correct it."
        ) from error


def _read_yaml(path: Path, cls: type) -> DictConfig:
    try:
        loaded = OmegaConf.load(StringIO(_quote_texts(path.read_text("utf-8"), cls)))
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no configuration file {path}.", remedy="Check the path given to --config."
        ) from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}.", remedy="Correct the file.") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path} holds no settings.", remedy="Write one 'key: value' a line.")
    return loaded


def _quote_texts(source: str, hint: Any) -> str:
    """The YAML `source` of a setting of type `hint`, with quotes around its plain texts: `off` would be read as False."""
    for start, end in sorted(set(_plain_texts(yaml.compose(source, Loader=yaml.SafeLoader), hint)), reverse=True):
        quoted = source[start:end].replace("'", "''")
        source = f"{source[:start]}'{quoted}'{source[end:]}"
    return source


def _plain_texts(node: yaml.Node | None, hint: Any) -> Iterator[tuple[int, int]]:
    """Where in the source the unquoted scalars lie that `hint` takes as text; null stays null."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if get_origin(hint) is dict:
                yield from _plain_texts(key, get_args(hint)[0])
            yield from _plain_texts(value, _below(hint, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _plain_texts(value, _below(hint, ""))
    elif isinstance(node, yaml.ScalarNode) and _is_text(hint) and node.style is None and node.tag not in _NO_TEXT_TAGS:
        start, end = node.start_mark, node.end_mark
        if end.index - start.index == len(node.value):  # neither anchored nor folded
            yield start.index, end.index


def _type_of(cls: type, key: str) -> Any:
    """Type of the setting with the dotted name `key`; None where there is none."""
    hint: Any = cls
    for part in key.split("."):
        hint = _below(hint, part)
    return hint


def _below(hint: Any, key: str) -> Any:
    """Type of the setting `key` within one of type `hint`; None where there is none."""
    if isinstance(hint, UnionType):
        return next(filter(None, (_below(part, key) for part in get_args(hint))), None)
    if dataclasses.is_dataclass(hint):
        return next((field.type for field in dataclasses.fields(hint) if field.name == key), None)
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    return get_args(hint)[0] if get_origin(hint) in _LISTS else None


def _is_text(hint: Any) -> bool:
    return hint is str or (isinstance(hint, UnionType) and str in get_args(hint))


def _merge(cls: type, base: Any, extra: Any, where: str, edited: Sequence[str] = ()) -> Any:
    """`extra` over `base`. `edited` are the keys that lead to what `extra` gives: tables on that way keep their rest."""
    _empty_tables(base, extra, cls, edited)
    try:
        return OmegaConf.merge(base, extra)
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        near = difflib.get_close_matches(key, known_keys(cls), n=2, cutoff=0.5)
        remedy = f"Did you mean {' or '.join(near)}?" if near else f"Known settings: {', '.join(known_keys(cls))}."
        raise ConfigError(f"Unknown setting {key!r} in {where}.", remedy=remedy) from error
    except (OmegaConfBaseException, TypeError) as error:  # the latter for a list in a table's place
        first_line = str(error).splitlines()[0].rstrip(".")
        key = str(getattr(error, "full_key", None) or ".".join(edited))
        remedy = f"Give a list: {key}=[…]." if get_origin(_type_of(cls, key)) in _LISTS else "Correct its value."
        raise ConfigError(
            f"{f'Setting {key!r}' if key else 'A setting'} in {where} cannot be used: {first_line}.", remedy=remedy
        ) from error


def _require_finite(values: dict[str, Any], prefix: str = "") -> None:
    """Raise ConfigError for a number that is none: comparisons with nan are all false, so it slips through every check."""
    for key, value in values.items():
        if isinstance(value, dict):
            _require_finite(value, f"{prefix}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"Setting {prefix + key!r} is {value}.", remedy="Give a finite number.")


def _empty_tables(base: Any, extra: Any, hint: Any, edited: Sequence[str] = ()) -> None:
    """Remove the entries of those tables of `base` that `extra` gives anew."""
    if not (isinstance(base, DictConfig) and isinstance(extra, DictConfig)):
        return
    if get_origin(hint) is dict and not edited:
        with read_write(base), open_dict(base):
            base.clear()
        return
    for key in edited[:1] or extra:
        nested = base._get_node(key, validate_access=False)
        _empty_tables(nested, extra._get_node(key), _below(hint, str(key)), edited[1:])


def known_keys(cls: type, prefix: str = "") -> list[str]:
    """All dotted keys that `cls` and its nested dataclasses accept; `<name>` stands for the key of a table's entry."""
    keys: list[str] = []
    for field in dataclasses.fields(cls):
        is_table = get_origin(field.type) is dict
        hint, name = (get_args(field.type)[1], f"{field.name}.<name>") if is_table else (field.type, field.name)
        nested = next((part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)), None)
        keys += known_keys(nested, f"{prefix}{name}.") if isinstance(nested, type) else [f"{prefix}{name}"]
    return keys
