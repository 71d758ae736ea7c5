from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dmma_core.config_loading import config_from_dict, config_to_dict, config_to_yaml, known_keys, load_config
from dmma_core.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError(f"rate is {self.rate}.", remedy="Use 0 or more.")


@dataclass(frozen=True)
class Outer:
    name: str = "a"
    size: int = 3
    inner: Inner = field(default_factory=Inner)
    maybe: int | None = None


def test_defaults_then_file_then_command_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("size: 4\ninner:\n  rate: 0.25\n")
    assert load_config(Outer, file, ["size=5", "maybe=2"]) == Outer(size=5, inner=Inner(0.25), maybe=2)


def test_nothing_behind_the_sign_is_the_empty_text() -> None:
    assert load_config(Outer, None, ["name="]).name == ""


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("dog: bark", "dog: bark"),
        ("take #2", "take #2"),
        ("007", "007"),
        ("off", "off"),
        ("[x", "[x"),
        ("'a: b'", "a: b"),
    ],
)
def test_a_text_is_taken_as_it_stands(given: str, text: str) -> None:
    assert load_config(Outer, None, [f"name={given}"]).name == text


def test_unknown_key_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"Unknown setting 'inner.rat' .* Did you mean inner.rate"):
        load_config(Outer, None, ["inner.rat=1"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("size=many", "'size'"),
        ("size=[1,", "unreadable value"),
        ("size", "is not a setting"),
        ("inner.rate=-1", "rate is -1.0"),
    ],
)
def test_bad_values_are_sentences(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(Outer, None, [override])


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n"])
def test_bad_files_are_sentences(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="bad.yaml"):
        load_config(Outer, file)
    with pytest.raises(ConfigError, match="There is no configuration file"):
        load_config(Outer, tmp_path / "absent.yaml")


def test_round_trips_through_yaml_and_dict(tmp_path: Path) -> None:
    config = Outer("b", 7, Inner(0.125), 4)
    file = tmp_path / "c.yaml"
    file.write_text(config_to_yaml(config))
    assert load_config(Outer, file) == config
    assert config_from_dict(Outer, config_to_dict(config), "an artefact") == config


def test_known_keys_are_dotted() -> None:
    assert known_keys(Outer) == ["name", "size", "inner.rate", "maybe"]
