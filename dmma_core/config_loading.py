"""Configuration at the door: structured dataclass < YAML file < `key=value`; frozen dataclasses inside.

The only module that imports OmegaConf. Nothing below the door sees a DictConfig.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from omegaconf import DictConfig, ListConfig, OmegaConf, StringNode
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from dmma_core.errors import ConfigError

Config = TypeVar("Config")


def load_config(cls: type[Config], file: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Build `cls` from its defaults, then `file`, then `overrides` ("key.sub=value").

    An override of a text is taken as it stands, whatever YAML would make of it; quotes around it are removed.
    Raises ConfigError for a missing file, an unknown key (with the nearest known ones) or a value of the wrong type.
    """
    merged = OmegaConf.structured(cls)
    if file is not None:
        merged = _merge(cls, merged, _read_yaml(Path(file)), str(file))
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"{override!r} is not a setting.", remedy="Write key=value, for example seed=7.")
        merged = _merge(cls, merged, _setting(merged, key, value), "the command line")
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", "") or "")
        raise ConfigError(
            f"Setting {key!r} of {cls.__name__} has no value.", remedy=f"Give it as {key}=… or in the YAML file."
        ) from error
    assert isinstance(config, cls)
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


def _setting(base: DictConfig, key: str, value: str) -> DictConfig:
    """`key=value` as nested settings. YAML would cut "take #2" short and take "dog: bark" for a table."""
    if _takes_text(base, key) and not (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        setting = OmegaConf.create({})
        OmegaConf.update(setting, key, None if value == "null" else value)
        return setting
    try:
        return OmegaConf.from_dotlist([f"{key}={value}" if value else f"{key}=''"])  # nothing: the empty text, not null
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"Setting {key!r} has the unreadable value {value!r}.", remedy="Quote it, or correct it."
        ) from error


def _takes_text(base: DictConfig, key: str) -> bool:
    node: Any = base
    for part in key.split("."):
        node = node._get_node(part, validate_access=False) if isinstance(node, DictConfig) else None
    return isinstance(node, StringNode)


def _read_yaml(path: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no configuration file {path}.", remedy="Check the path given to --config."
        ) from error
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}.", remedy="Correct the file.") from error
    if isinstance(loaded, ListConfig):
        raise ConfigError(f"{path} holds a list, not settings.", remedy="Write one 'key: value' a line.")
    return loaded


def _merge(cls: type, base: Any, extra: Any, where: str) -> Any:
    try:
        return OmegaConf.merge(base, extra)
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        near = difflib.get_close_matches(key, known_keys(cls), n=2, cutoff=0.5)
        remedy = f"Did you mean {' or '.join(near)}?" if near else f"Known settings: {', '.join(known_keys(cls))}."
        raise ConfigError(f"Unknown setting {key!r} in {where}.", remedy=remedy) from error
    except OmegaConfBaseException as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(
            f"Setting {getattr(error, 'full_key', None)!r} in {where} cannot be used: {first_line}.",
            remedy="Correct its value.",
        ) from error


def known_keys(cls: type, prefix: str = "") -> list[str]:
    """All dotted keys that `cls` and its nested dataclasses accept."""
    keys: list[str] = []
    hints = {field.name: field.type for field in dataclasses.fields(cls)}
    for name, hint in hints.items():
        nested = [part for part in (hint, *get_args(hint)) if isinstance(part, type) and dataclasses.is_dataclass(part)]
        keys += known_keys(nested[0], f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys
