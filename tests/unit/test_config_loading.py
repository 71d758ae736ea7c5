import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

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


@dataclass(frozen=True)
class Part:
    mode: str = "plain"
    note: str | None = None


@dataclass(frozen=True)
class Tables:
    parts: dict[str, Part] = field(default_factory=lambda: {"first": Part(), "second": Part("both", "2")})
    words: list[str] = field(default_factory=list)
    steps: tuple[int, ...] = (1, 2)
    switch: bool = True


@dataclass(frozen=True)
class Numbers:
    number: float = 1.0
    numbers: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Needed:
    name: str


def load_yaml(tmp_path: Path, text: str) -> Tables:
    file = tmp_path / "tables.yaml"
    file.write_text(text)
    return load_config(Tables, file)


def test_defaults_then_file_then_command_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("size: 4\ninner:\n  rate: 0.25\n")
    assert load_config(Outer, file, ["size=5", "maybe=2"]) == Outer(size=5, inner=Inner(0.25), maybe=2)


def test_an_empty_value_is_the_empty_string() -> None:
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
def test_text_is_taken_literally(given: str, text: str) -> None:
    assert load_config(Outer, None, [f"name={given}"]).name == text


@pytest.mark.parametrize(
    ("given", "table"),
    [("{mine: {mode: both}}", {"mine": Part("both")}), ("{}", {}), ("{second: {}}", {"second": Part()})],
)
def test_a_given_mapping_replaces_the_default_one(tmp_path: Path, given: str, table: dict[str, Part]) -> None:
    assert load_yaml(tmp_path, f"parts: {given}").parts == table
    assert load_config(Tables, None, [f"parts={given}"]).parts == table


def test_the_command_line_edits_one_entry_of_a_mapping(tmp_path: Path) -> None:
    edited = load_config(Tables, None, ["parts.second.mode=gated", "parts.third.note=x", "parts.first={note: y}"]).parts
    assert edited == {"first": Part("plain", "y"), "second": Part("gated", "2"), "third": Part("plain", "x")}


@pytest.mark.parametrize("word", ["off", "no", "on", "Yes", "true", "007", "1e-3", "2026-01-01", "it's", "'off'"])
def test_text_of_a_file_is_taken_literally(tmp_path: Path, word: str) -> None:
    text = word.strip("'")
    target = Tables({text: Part(text, text)}, [text])
    block = f"# word\nparts:\n  {word}:\n    mode: {word}  # why\n    note: {word}\nwords:\n- {word}\n"
    assert load_yaml(tmp_path, block) == target
    assert load_yaml(tmp_path, f"parts: {{{word}: {{mode: {word}, note: {word}}}}}\nwords: [{word}]") == target
    if "'" not in text:  # a key of the command line has no quotes
        assert load_config(Tables, None, [f"parts={{{word}: {{mode: {word}}}}}"]).parts == {text: Part(text)}
        assert load_config(Tables, None, [f"parts.{text}.mode={word}"]).parts[text] == Part(text)
        assert load_config(Tables, None, [f"words=[{word}]"]).words == [text]


def test_yaml_keeps_its_meaning_elsewhere(tmp_path: Path) -> None:
    read = load_yaml(tmp_path, "switch: off\nparts:\n  a: &a {note: null, mode: off}\n  b: {<<: *a, note: ~}")
    assert read == Tables({"a": Part("off"), "b": Part("off")}, switch=False)


# Text that OmegaConf, YAML or a shell would interpret.
TEXTS = [
    *(
        "${5}",
        "a price of ${5}",
        "${oc.env:HOME}",
        "${name}",
        "${",
        "$",
        "\\${x}",
        "$${x}",
        "\\\\${x}\\",
        "${x}\\",
        "${a:${b}}",
    ),
    *(
        "???",
        "\\???",
        "??",
        "why???",
        "null",
        "~",
        "",
        " ",
        "off",
        "0x10",
        "1e-3",
        ".inf",
        "2026-01-01",
        "a: b",
        "a #b",
    ),
    *(
        "- a",
        "[x",
        "{",
        "'",
        '"',
        "'a' and 'b'",
        '"a" or "b"',
        "!tag",
        "&a",
        "*a",
        "<<",
        "=",
        "%",
        "@",
        "|",
        "two\nlines\n",
    ),
    *("$\0{x}", "?\0??", "\0", "\ufeff", "a\u2028b\x85", "tab\t", "ünï 🎧", "\\"),
]


def random_texts(num_texts: int) -> list[str]:
    """Texts of the characters that have a meaning to YAML or OmegaConf."""
    dice = random.Random(0)
    return ["".join(dice.choices("$${{}?\\'\"a1 .:,#[]&*!|>-~\n\0", k=dice.randint(1, 8))) for _ in range(num_texts)]


def quoted(plain: Any) -> str:
    """JSON that is YAML too, which folds some characters and joins no surrogates."""
    return json.dumps(plain, ensure_ascii="\u2028" in json.dumps(plain, ensure_ascii=False))


def texts_everywhere(text: str) -> Tables:
    return Tables({text: Part(text, text)}, [text, text])


@pytest.mark.parametrize("text", [*TEXTS, *random_texts(150)])
def test_text_is_unchanged(tmp_path: Path, text: str) -> None:
    config = texts_everywhere(text)
    plain = config_to_dict(config)
    assert config_from_dict(Tables, plain, "an artefact") == config
    assert load_yaml(tmp_path, config_to_yaml(config)) == config
    assert load_yaml(tmp_path, quoted(plain)) == config
    assert yaml.safe_load(config_to_yaml(config)) == plain == json.loads(json.dumps(plain))
    assert load_config(Outer, None, [f"name={text}"]).name == text
    assert load_config(Tables, None, [f"words={quoted([text])}"]).words == [text]


def test_no_setting_reads_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMMA_SECRET", "7")
    for secret in ("${oc.env:DMMA_SECRET}", "${oc.decode:${oc.env:DMMA_SECRET}}"):
        file = tmp_path / "c.yaml"
        file.write_text(f"size: {secret}\n" if secret[5] == "e" else f"inner: {{rate: '{secret}'}}\n")
        with pytest.raises(ConfigError) as caught:
            load_config(Outer, file)
        assert secret in str(caught.value)
        for key in ("size", "inner", "inner.rate", "maybe"):
            with pytest.raises(ConfigError, match=f"'{key}' in the command line cannot be used"):
                load_config(Outer, None, [f"{key}='{secret}'"])
            with pytest.raises(ConfigError, match="in an artefact cannot be used"):
                config_from_dict(Outer, {"inner": {"rate": secret}}, "an artefact")


def test_null_is_not_text(tmp_path: Path) -> None:
    assert load_config(Tables, None, ["parts.second.note=null"]).parts["second"].note is None
    assert load_config(Tables, None, ["parts.second.note='null'"]).parts["second"].note == "null"
    assert load_config(Outer, None, ["maybe=null"]).maybe is None
    for nothing in ("null", "~", ""):
        file = tmp_path / "c.yaml"
        file.write_text(f"name: {nothing}\n")
        with pytest.raises(ConfigError, match="'name' in .* cannot be used"):
            load_config(Outer, file)


@pytest.mark.parametrize(
    ("written", "number"),
    [("1.0e-3", 1e-3), ("1e-3", 1e-3), ("3", 3.0), ("-.5", -0.5), ("1_000.5", 1000.5), ("'2'", 2.0)],
)
def test_numbers_are_read_by_the_type_of_their_setting(tmp_path: Path, written: str, number: float) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"numbers: [{written}]\nnumber: {written}\n")
    read = load_config(Numbers, file)
    assert (read.number, read.numbers) == (number, (number,))
    assert type(read.number) is float
    assert load_config(Numbers, None, [f"number={written}", f"numbers=[{written}]"]) == read


@pytest.mark.parametrize("written", [".inf", "-.INF", ".NaN", "nan"])
def test_numbers_must_be_finite_everywhere(tmp_path: Path, written: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"numbers: [1, {written}]\n")
    with pytest.raises(ConfigError, match="Setting 'numbers' is (-?inf|nan)"):
        load_config(Numbers, file)
    with pytest.raises(ConfigError, match="Setting 'number' is"):
        config_from_dict(Numbers, {"number": float(written.replace(".", ""))}, "an artefact")


def test_a_setting_without_default_must_be_given() -> None:
    assert load_config(Needed, None, ["name=???"]) == Needed("???")
    with pytest.raises(ConfigError, match=r"Setting 'name' of Needed has no value. Give it as name=…"):
        load_config(Needed)
    with pytest.raises(ConfigError, match="'name' of Needed has no value"):
        config_from_dict(Needed, {}, "an artefact")


def test_unknown_key_names_a_similar_one() -> None:
    with pytest.raises(ConfigError, match=r"Unknown setting 'inner.rat' .* Did you mean inner.rate"):
        load_config(Outer, None, ["inner.rat=1"])
    with pytest.raises(ConfigError, match=r"Unknown setting 'parts.x.mod' .* Did you mean parts.<name>.mode"):
        load_config(Tables, None, ["parts.x.mod=1"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("size=many", "'size'"),
        ("size=[1,", "unreadable value"),
        ("size", "is not a setting. Write key=value, for example name=…"),
        ("inner.rate=nan", "'inner.rate' is nan"),
        ("inner.rate=.inf", "'inner.rate' is inf"),
        ("inner.rate=-1", "rate is -1.0"),
    ],
)
def test_bad_values_are_reported(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(Outer, None, [override])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("words=a", r"'words' .* Give a list: words=\[…\]"),
        ("steps=3", r"'steps' .* Give a list: steps=\[…\]"),
        ("parts=[1]", "'parts' .* cannot be used"),
        ("parts.first=1", "'parts.first' .* cannot be used"),
    ],
)
def test_values_of_another_type_are_reported(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(Tables, None, [override])


MULTIPLYING = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a: [",
            "- 1\n- 2\n",
            "3",
            "size: 1\nsize: 2\n",
            "size: !!python/name:os.system 1",
            "size: !!int x",
            "null: 1",
        ),
        *(
            "name: &a [*a]",
            "name: &a {<<: *a}",
            "[" * 5000,
            "name: " + "[" * 120 + "]" * 120,
            "[a]: 1",
            "inner: {null: 1}",
        ),
        MULTIPLYING,
    ],
    ids=lambda text: text[:20],
)
def test_bad_files_are_reported(tmp_path: Path, text: str) -> None:
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
    assert known_keys(Tables) == ["parts.<name>.mode", "parts.<name>.note", "words", "steps", "switch"]
