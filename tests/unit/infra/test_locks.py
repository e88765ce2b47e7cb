"""The locks: what is installed is what is pinned, file by file."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PINS = (ROOT / "constraints.txt", ROOT / "infra" / "docker" / "constraints-hpc.txt")
LOCKS = {ROOT / "requirements.lock": ("dev", "build"), ROOT / "infra/docker/requirements.lock": ("hpc", "gpu", "build")}


def locked(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by name."""
    entries = re.findall(
        r"^([a-z0-9.-]+)==(\S+)(?: ; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", path.read_text(), re.M
    )
    return {name: (version, re.findall(r"sha256:([0-9a-f]{64})", hashes)) for name, version, hashes in entries}


def pins() -> dict[str, str]:
    """Every pinned version by normalised name."""
    lines = (line for path in PINS for line in path.read_text().splitlines())
    found = (re.match(r"([\w.-]+)(?:\[.*?\])?==(\S+)", line) for line in lines)
    return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_has_pinned_versions_with_hashes_of_all_requirements(path: Path) -> None:
    entries = locked(path)
    assert len(entries) == sum("==" in line for line in path.read_text().splitlines() if line[0].isalpha()) > 100
    pinned = pins()
    assert {n: v for n, (v, _) in entries.items() if pinned.get(n, v) != v} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *(r for e in LOCKS[path] for r in project["optional-dependencies"][e])]
    assert {canonicalize_name(Requirement(line).name) for line in required} - set(entries) <= {"torch"}
    assert "torch" not in entries


def test_the_image_has_no_development_tools() -> None:
    image = locked(ROOT / "infra" / "docker" / "requirements.lock")
    assert not {"pytest", "moto", "mypy", "ruff", "selenium"} & set(image)


def test_hashes_are_checked_before_anything_else_is_installed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "$(BIN)/pip install" in line]
    assert "--require-hashes --no-deps -r requirements.lock" in installs[0]
    docker = (ROOT / "infra" / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    for line in (line for line in docker.splitlines() if line.startswith("RUN pip") and "torch" in line):
        assert "--require-hashes --no-deps --requirement=requirements.lock" in line.split("&&")[0]
        assert line.rstrip().endswith("pip --python /venv/bin/python check")


def test_pip_refuses_a_file_with_another_hash(tmp_path: Path) -> None:
    (tmp_path / "thing-1.0-py3-none-any.whl").write_bytes(b"PK\x05\x06" + bytes(18))
    (tmp_path / "lock").write_text(f"thing==1.0 --hash=sha256:{'0' * 64}\n")
    options = ["--no-index", f"--find-links={tmp_path}", f"--target={tmp_path / 'x'}", "--isolated", "--no-deps"]
    command = [sys.executable, "-m", "pip", "install", *options, "--require-hashes", "-r", str(tmp_path / "lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
