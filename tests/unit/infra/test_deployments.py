"""infra/prefect.yaml and automations.yaml fit the flows that they start, and the versions that they need are pinned."""

from __future__ import annotations

import importlib
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import Flow
from pydantic import BaseModel

from tasks.models.events import EVALUATED, KINDS, PROMOTED, PUBLISHED, TRAINED
from tasks.runtime.placeholders import resolve_placeholders

FILE = yaml.safe_load(Path("infra/prefect.yaml").read_text())
DEPLOYMENTS = {deployment["name"]: deployment for deployment in FILE["deployments"]}
RULES = yaml.safe_load(Path("infra/automations.yaml").read_text())["automations"]
PAYLOAD = {"model": "s3://b/m@1", "digest": "0" * 64, "record": "s3://b/r.json", "url": "s3://b/c/d", "denoisers": "[]"}


def flow_of(deployment: dict[str, Any]) -> Flow[Any, Any]:
    path, name = deployment["entrypoint"].split(":")
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)


def model_of(deployment: dict[str, Any]) -> type[BaseModel]:
    return get_type_hints(flow_of(deployment).fn)["parameters"]


def filled(value: Any) -> Any:
    """What the server makes of templates: text, or of a JSON template what it means."""
    if isinstance(value, dict):
        if value.get("__prefect_kind") == "json":
            assert value["value"]["template"] == "{{ event.payload.denoisers | tojson }}"
            return ["s3://b/d@1", "s3://b/d@2"]
        return {key: filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"\{\{ event\.payload\.(\w+)(?:\[:12\])? \}\}", lambda found: PAYLOAD[found[1]], value)
    return value


def given(deployment: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every set of parameters that a deployment is started with, by whom."""
    sets = [("by hand", deployment)] if "parameters" in deployment else []
    sets += [(t["expect"][0], t) for t in deployment.get("triggers", ())]
    return [(who, filled(source["parameters"])) for who, source in sets]


def test_every_flow_has_one_deployment() -> None:
    files = [p for p in Path("flows").glob("*.py") if "@pipeline(" in p.read_text()]
    assert sorted(d["entrypoint"].split(":")[0] for d in DEPLOYMENTS.values()) == sorted(map(str, files))
    assert len(DEPLOYMENTS) == len(FILE["deployments"])


GIVEN = [(name, *each) for name, deployment in DEPLOYMENTS.items() for each in given(deployment)]


@pytest.mark.parametrize(("name", "who", "parameters"), GIVEN, ids=[f"{name} {who}" for name, who, _ in GIVEN])
def test_parameters_fit_the_flow_before_and_after_placeholders(name: str, who: str, parameters: dict[str, Any]) -> None:
    assert list(parameters) == ["parameters"], who
    found = resolve_placeholders(model_of(DEPLOYMENTS[name]).model_validate(parameters["parameters"]))
    assert not re.search(r"\{[a-z]", str(found.model_dump())), who


def test_files_that_parameters_name_are_there() -> None:
    locations = re.findall(r"configs/[\w/]+\.yaml", str(GIVEN))
    assert len(set(locations)) >= 4
    assert [location for location in locations if not Path(location).is_file()] == []


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_deployment_has_a_pool_tags_and_heartbeats(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment["work_pool"]["name"] in ("cpu", "gpu")
    assert deployment["tags"][0] == "pngnoise"  # failures are notified by it
    env = deployment["work_pool"]["job_variables"]["env"]
    within = next(rule["trigger"]["within"] for rule in RULES if rule["trigger"]["posture"] == "Proactive")
    assert 3 * int(env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) <= within


def test_schedules_are_paused_and_told_apart_by_name() -> None:
    schedules = [s for d in DEPLOYMENTS.values() for s in d.get("schedules", ())]
    assert [s["active"] for s in schedules] == [False] * len(schedules)
    assert len({s["slug"] for s in schedules}) == len(schedules) == 3
    assert not any("parameters" in s for s in schedules), "Prefect 3.8.8 drops them when the schedule is switched on"
    assert all("parameters" in d for d in DEPLOYMENTS.values() if "schedules" in d)


def test_trainings_use_the_gpu_pool_one_at_a_time() -> None:
    for name in ("train", "train-denoiser"):
        assert DEPLOYMENTS[name]["work_pool"]["name"] == "gpu"
        assert DEPLOYMENTS[name]["concurrency_limit"]["limit"] == 1
        assert DEPLOYMENTS[name]["concurrency_limit"]["collision_strategy"] == "ENQUEUE"


def test_triggers_expect_events_that_are_sent() -> None:
    for deployment in DEPLOYMENTS.values():
        for trigger in deployment.get("triggers", ()):
            assert trigger["expect"][0] in (TRAINED, EVALUATED, PROMOTED, PUBLISHED)
            assert set(trigger["match"]) <= {"png.kind", "png.series"}
            if "png.kind" in trigger["match"]:
                assert trigger["match"]["png.kind"] in KINDS.values()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])
def test_automations_are_what_prefect_takes(rule: dict[str, Any]) -> None:
    content = {key: value for key, value in rule.items() if key != "needs"}
    for action in content["actions"]:
        if action.pop("block", None):
            action["block_document_id"] = "00000000-0000-0000-0000-000000000000"
    found = AutomationCore.model_validate(content)
    assert found.enabled


@pytest.mark.parametrize("bad", ["sqlalchemy==2.1.0", "fastapi==0.155.0", "prefect==3.9.0"])
def test_versions_that_break_the_scheduler_or_server_are_excluded(bad: str) -> None:
    """sqlalchemy 2.1 leaves server and UI up while the scheduler never makes a run; newer fastapi ends the server."""
    name, _, number = bad.partition("==")
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    specifier = next(requirement.specifier for requirement in wanted if requirement.name == name)
    assert not specifier.contains(number)
    pinned = re.search(rf"^{name}(?:\[.*\])?==(.+)$", Path("constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert specifier.contains(pinned[1])
    assert specifier.contains(Version(version(name)))
