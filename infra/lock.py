"""Write the locks: every pinned package with the sha256 of each of its files, so that pip takes no other.

    python -m infra.lock

For maintainers, after constraints.txt or infra/docker/constraints-hpc.txt changed; it asks the package index.
torch is in no lock: which build it is depends on the machine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

ROOT = Path(__file__).parents[1]
PINS = (ROOT / "constraints.txt", ROOT / "infra" / "docker" / "constraints-hpc.txt")
LOCKS = {ROOT / "requirements.lock": ("dev",), ROOT / "infra" / "docker" / "requirements.lock": ("hpc", "gpu")}
"""Files by the extras that they are of."""
_JSON = "application/vnd.pypi.simple.v1+json"
_HEAD = "# Written by `python -m infra.lock` from {pins}. {count} packages, each with all files that pip may take.\n"


def pins() -> dict[str, str]:
    """Every pinned version by normalised name."""
    lines = (line for path in PINS for line in path.read_text().splitlines())
    found = (re.match(r"([\w.-]+)(?:\[.*?\])?==(\S+)", line) for line in lines)
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def asked(extras: Iterable[str]) -> list[str]:
    """What pyproject.toml asks for: to build, to run, and by extras."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = content["project"]
    wanted = [*content["build-system"]["requires"], *project["dependencies"]]
    return wanted + [line for extra in extras for line in project["optional-dependencies"][extra]]


def markers(extras: Iterable[str]) -> dict[str, str]:
    """For which machines a package is asked for, by normalised name, where it is not for all."""
    found = map(Requirement, asked(extras))
    return {canonicalize_name(one.name): f" ; {one.marker}" for one in found if one.marker}


def closure(extras: Iterable[str]) -> list[str]:
    """Names of everything that pip would install for that, torch and what comes with it excepted."""
    constraints = [word for path in PINS for word in ("-c", str(path))]
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", *options, *constraints, *asked(extras)]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    names = {canonicalize_name(item["metadata"]["name"]) for item in report["install"]}
    return sorted(names & pins().keys())


def hashes(index: str, name: str, version: str) -> list[str]:
    """sha256 of every file of a release."""
    request = urllib.request.Request(f"{index.rstrip('/')}/{name}/", headers={"Accept": _JSON})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    found = sorted(file["hashes"]["sha256"] for file in files if _version(file) == version)
    if not found:
        raise SystemExit(f"{name}=={version}: the index has no file of it")
    return found


def _version(file: dict[str, Any]) -> str | None:
    name = str(file["filename"])
    try:
        return str(parse_wheel_filename(name)[1] if name.endswith(".whl") else parse_sdist_filename(name)[1])
    except ValueError:  # eggs, installers
        return None


def entries(index: str, names: Iterable[str], only: Mapping[str, str]) -> Iterator[str]:
    """Lines of a lock, in order; ``only``: :func:`markers`."""
    versions = {name: pins()[name] for name in names}
    with ThreadPoolExecutor(4) as readers:
        found = readers.map(lambda item: hashes(index, *item), versions.items())
        for (name, version), digests in zip(versions.items(), found, strict=True):
            line = f"{name}=={version}{only.get(name, '')}"
            yield " \\\n".join([line, *(f"    --hash=sha256:{digest}" for digest in digests)]) + "\n"


def main() -> None:
    """Write all locks."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple/")
    told = " and ".join(str(path.relative_to(ROOT)) for path in PINS)
    for path, extras in LOCKS.items():
        names = closure(extras)
        path.write_text(_HEAD.format(pins=told, count=len(names)) + "".join(entries(index, names, markers(extras))))


if __name__ == "__main__":
    main()
