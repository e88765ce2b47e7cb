"""YAML into models: every error names the file, the key and the value."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from pngmodel.errors import UserError
from tasks.runtime.configuration import load_yaml, validate


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 1


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int
    inner: Inner = Inner()


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return load_yaml(path, Settings)


def test_a_valid_file_becomes_the_model(tmp_path: Path) -> None:
    assert load(tmp_path, "steps: 3\ninner: {depth: 2}\n") == Settings(steps=3, inner=Inner(depth=2))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: 3\nstep: 4\n", ["'step'", "4", "inner, steps"]),
        ("steps: 3\ninner: {depht: 7}\n", ["'inner.depht'", "7"]),
        ("steps: many\n", ["'steps'", "'many'"]),
        ("inner: {depth: 1}\n", ["'steps'", "missing"]),
        ("steps: [1, 2\n", ["not valid YAML", "line"]),
        ("- steps\n", ["mapping of keys to values", "list"]),
        ("", ["mapping of keys to values"]),
        ("steps: !!python/object/apply:os.getcwd []\n", ["not valid YAML"]),
    ],
)
def test_errors_name_file_key_and_value(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    for word in ["settings.yaml", *words]:
        assert word in str(caught.value)


def test_all_errors_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'steps'.*'extra'"):
        load(tmp_path, "steps: many\nextra: 1\n")


def test_a_missing_file_points_to_the_configurations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml.*configs/"):
        load_yaml(tmp_path / "nowhere.yaml", Settings)


def test_a_folder_and_binary_content_are_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    for path in (tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(UserError, match=path.name):
            load_yaml(path, Settings)


def test_validate_names_its_source() -> None:
    with pytest.raises(UserError, match=r"^form: .*'steps'"):
        validate(Settings, {"steps": None}, "form")


def test_strangers_files_make_no_endless_messages(tmp_path: Path) -> None:
    laughs = "a: &a [x, x]\n" + "".join(
        f"{k}: &{k} [*{p}, *{p}, *{p}]\n" for p, k in zip("abcdef", "bcdefg", strict=True)
    )
    texts = {
        laughs: r"not valid YAML: aliases \(\*name\) are not supported.*\n.*line 2",
        f"steps: {'x' * 9000}\n": r"'steps' has value 'x{99}\.\.\.: ",
        f"steps: 1\n{'k' * 900}: 1\n": r"unknown key 'k{100}\.\.\.'",
        "steps: 1\n" + "".join(f"k{k}: 1\n" for k in range(900)): r"and 880 more",
        f"steps: {'[' * 9000}\n": r"nested too deeply|not valid YAML",
        f"steps: 1 #{' ' * (64 << 10)}\n": r"has 65547 bytes; a configuration file may have at most 65536",
    }
    for text, words in texts.items():
        with pytest.raises(UserError, match=words) as raised:
            load(tmp_path, text)
        assert len(str(raised.value)) < 4000
