"""The Dockerfile and what is sent to its build: what can be known without building it."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
INFRA = ROOT / "infra"
DOCKERFILE = INFRA / "docker" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            name = rest.split(" AS ")[1]
            found[name] = []
        if name:
            found[name].append((word, rest))
    return found


def sent_to_the_build(path: str) -> bool:
    """What .dockerignore lets through: the last pattern that matches the path or a folder above it decides."""
    sent, parts = True, Path(path).parts
    above = ["/".join(parts[: k + 1]) for k in range(len(parts))]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if (
            line
            and not line.startswith("#")
            and any(
                fnmatch.fnmatchcase(a, pattern) or ("**/" in line and fnmatch.fnmatchcase(Path(a).name, pattern))
                for a in above
            )
        ):
            sent = line.startswith("!")
    return sent


def test_the_dockerfile_passes_its_linter() -> None:
    program = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_the_image_copies_is_there_and_sent_and_nothing_else_is() -> None:
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    names = {name for line in copied for name in line}
    assert {"pngmodel", "tasks", "flows", "configs", "infra", "pyproject.toml", "constraints.txt"} <= names
    for name in names:
        assert (ROOT / name).exists(), name
        assert sent_to_the_build(name), name
    for name in ("pngmodel/samples/val_0016_noisy.png", "configs/datasets/samples.yaml", "infra/docker/samples.sh"):
        assert (ROOT / name).exists(), name
        assert sent_to_the_build(name), name
    for name in (
        ".git",
        "runs",
        "data",
        "tests",
        "docs",
        ".venv",
        ".prefect",
        ".stack",
        "id_rsa",
        "flows/__pycache__/cli.pyc",
        "x.egg-info",
    ):
        assert not sent_to_the_build(name), name


@pytest.mark.parametrize("path", ["infra/.env", "infra/kubernetes/secret.env"])
def test_a_filled_example_reaches_neither_git_nor_an_image(path: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, timeout=30)
    assert ignored.returncode == 0
    assert not sent_to_the_build(path)


def test_targets_that_compose_builds_are_stages_of_the_dockerfile() -> None:
    base, gpu = (
        yaml.safe_load((INFRA / name).read_text())["services"] for name in ("compose.yaml", "compose.gpu.yaml")
    )
    changed = [base[name] | own | {"build": base[name]["build"] | own["build"]} for name, own in gpu.items()]
    services = [*base.values(), *changed]
    ours = [(service["image"].split(":")[0], service["build"]) for service in services if "build" in service]
    assert {(image, build["target"]) for image, build in ours} == {("pngnoise-cpu", "cpu"), ("pngnoise-cuda", "cuda")}
    assert {"cpu", "cuda"} <= set(stages())
    for _, build in ours:
        assert (INFRA / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_ends_as_a_user_without_a_name_and_hears_signals(target: str) -> None:
    own = stages()[target]
    assert own[0] == ("FROM", f"runtime AS {target}")
    assert [rest for word, rest in own if word == "USER"] == [own[-1][1]] == ["10001:10001"]
    shared = dict(stages()["runtime"])
    assert json.loads(shared["ENTRYPOINT"]) == ["tini", "--"]  # a shell would keep the signal to itself
    assert shared["STOPSIGNAL"] == "SIGTERM"
    assert shared["WORKDIR"] == "/app"
    assert shared["VOLUME"] == "/data"
    environment = dict(pair.split("=", 1) for pair in shared["ENV"].split())
    for variable in ("HOME", "PREFECT_HOME", "PREFECT_SERVER_UI_STATIC_DIRECTORY"):
        assert environment[variable].startswith("/data")
    assert environment["PNGNOISE_HOME"] == "/app"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"


def test_the_image_is_pinned_and_installs_from_public_places() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG" and "=" in rest)
    assert f"torch=={arguments['TORCH']}" in (ROOT / "Makefile").read_text()
    assert re.fullmatch(r"3\.11\.\d+", arguments["PYTHON"])
    bases = {rest.split()[0] for word, rest in instructions() if word == "FROM"}
    assert bases - set(stages()) == {"python:${PYTHON}-slim-bookworm", "scratch"}
    assert set(re.findall(r"https?://([\w.-]+)", DOCKERFILE.read_text())) == {"download.pytorch.org"}
    for stage in ("build-cpu", "build-cuda"):
        runs = " ".join(rest for word, rest in stages()[stage] if word == "RUN")
        assert '"torch==${TORCH}"' in runs
        assert "-c constraints.txt -c constraints-hpc.txt" in runs
        assert "[dev]" not in runs


def test_no_secret_is_built_in_and_nobody_is_root() -> None:
    said = [rest for word, rest in instructions() if word in ("ARG", "ENV", "LABEL")]
    assert not [line for line in said if re.search(r"(?i)secret|passw|token|credential|access_key|auth", line)]
    assert not [rest for word, rest in instructions() if word in ("ADD", "ONBUILD") or "--mount=type=secret" in rest]
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)
    images = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"].values()
    images += [service["image"] for service in compose]
    assert not [image for image in images if image.endswith(":latest")]
    assert all(":" in image for image in images if image not in {*stages(), "scratch"})


def test_what_the_image_needs_besides_is_pinned_once() -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), flags=re.MULTILINE))

    further, base = pins(INFRA / "docker" / "constraints-hpc.txt"), pins(ROOT / "constraints.txt")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needs = [*extras["hpc"], *extras["gpu"]]
    assert {re.split(r"[<>=]", need)[0] for need in needs} <= set(further) | set(base)
    assert not set(further) & set(base)


@pytest.mark.parametrize(("target", "gpu"), [("cpu", False), ("cuda", True)])
def test_a_target_installs_the_extras_that_it_needs(target: str, gpu: bool) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (lists,) = (rest for word, rest in stages()["build"] if word == "RUN")
    made = {}
    for program, name in re.findall(r"python -c '([^']+)' > (\S+)", lists):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        made[name] = done.stdout.split("\n")
    (install,) = (rest for word, rest in stages()[f"build-{target}"] if word == "RUN" and " -r " in rest)
    installed = {need for name in re.findall(r" -r (\S+)", install) for need in made[name]}
    assert set(extras["hpc"]) <= installed
    assert (set(extras["gpu"]) <= installed) is gpu


@pytest.mark.parametrize(
    "path", ["docker/Dockerfile", "compose.yaml", "compose.gpu.yaml", "kubernetes/base/kustomization.yaml", "README.md"]
)
def test_what_was_not_run_says_so(path: str) -> None:
    assert "NOT RUN by us" in (INFRA / path).read_text()
