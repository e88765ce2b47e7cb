"""The locks: what is installed is what is pinned, file by file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.lock import LOCKS, pins, requirements

ROOT = Path(__file__).parents[3]
OTHER_PYTHONS = {"async-timeout"}  # pinned for the first releases of 3.11
MACHINES_OWN = {"torch"}


def locked(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by name."""
    entries = re.findall(
        r"^([a-z0-9-]+)==(\S+)(?: ; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
        path.read_text(),
        re.MULTILINE,
    )
    return {name: (version, re.findall(r"sha256:([0-9a-f]{64})", hashes)) for name, version, hashes in entries}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_holds_pinned_versions_with_their_hashes(path: Path) -> None:
    entries, lines = locked(path), path.read_text().splitlines()
    assert len(entries) == sum("==" in line for line in lines) > 100  # every line was understood
    assert all(re.match(r"#|[a-z0-9-]+==|    --hash=sha256:", line) for line in lines)
    assert {name: version for name, (version, _) in entries.items() if pins()[name] != version} == {}
    assert list(entries) == sorted(entries)


@pytest.mark.parametrize(("path", "extras"), LOCKS.items(), ids=lambda value: str(value))
def test_a_lock_has_everything_that_is_asked_for(path: Path, extras: tuple[str, ...]) -> None:
    wanted = {canonicalize_name(Requirement(line).name) for line in requirements(extras)}
    assert wanted - set(locked(path)) <= MACHINES_OWN


def test_no_pin_is_forgotten() -> None:
    everything = {name for path in LOCKS for name in locked(path)}
    assert set(pins()) - everything <= OTHER_PYTHONS


def test_the_image_gets_no_tools_of_developers() -> None:
    assert not {"pytest", "moto", "mypy", "ruff", "selenium"} & set(
        locked(ROOT / "infra" / "docker" / "requirements.lock")
    )


def test_pip_is_told_to_look_at_the_hashes_before_anything_else_is_installed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "$(BIN)/pip install" in line]
    assert "--require-hashes --no-deps -r requirements.lock" in installs[0]
    docker = (ROOT / "infra" / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    for line in (line for line in docker.splitlines() if line.startswith("RUN pip") and "torch" in line):
        first = line.split("&&")[0]
        assert "--require-hashes --no-deps --requirement=requirements.lock" in first
        assert line.rstrip().endswith("pip --python /venv/bin/python check")


def test_pip_refuses_a_file_with_another_hash(tmp_path: Path) -> None:
    """What the promise rests on, by pip itself: a package on disk whose digest is not the recorded one."""
    package = tmp_path / "thing-1.0-py3-none-any.whl"
    package.write_bytes(b"PK\x05\x06" + bytes(18))
    (tmp_path / "lock").write_text(f"thing==1.0 --hash=sha256:{'0' * 64}\n")
    options = ["--no-index", f"--find-links={tmp_path}", f"--target={tmp_path / 'x'}", "--isolated", "--no-deps"]
    command = [sys.executable, "-m", "pip", "install", *options, "--require-hashes", "-r", str(tmp_path / "lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
