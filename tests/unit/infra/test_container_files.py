"""Compose file and Kubernetes files: what can be known without an engine and without a cluster.

Each is read by its own tool: the real Compose, kubectl's kustomize, Kubernetes' schemas, yamllint.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import kubernetes_validate
import pytest
import yaml

from tasks.runtime.parameters import load_cluster

ROOT = Path(__file__).parents[3]
INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SECRETS = {
    "PNGNOISE_DB_PASSWORD": "db-sentinel",
    "PNGNOISE_API_AUTH": "api:sentinel",
    "PNGNOISE_S3_ACCESS_KEY": "access-sentinel",
    "PNGNOISE_S3_SECRET_KEY": "secret-sentinel",
}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|AUTH|ACCESS_KEY|CONNECTION_URL")
Manifest = dict[str, Any]
DEPLOYMENTS = yaml.safe_load((INFRA / "prefect.yaml").read_text())["deployments"]
WORKERS = ["worker-cpu", "worker-gpu"]
FOLDERS = ["base", "overlays/gpu"]


def tool(name: str, *arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A program of this environment; nothing of the caller's environment decides what it says."""
    program = Path(sys.executable).with_name(name)
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"} | (env or {})
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT, env=clean)


def compose(*arguments: str, env: dict[str, str], gpu: bool = False) -> subprocess.CompletedProcess[str]:
    files = ["-f", "infra/compose.yaml", *(["-f", "infra/compose.gpu.yaml"] if gpu else [])]
    # Without the .env that a developer may have beside the file.
    return tool("docker-compose", "--env-file", os.devnull, *files, *arguments, env=env)


@functools.cache
def services(gpu: bool = True, **further: str) -> dict[str, Manifest]:
    result = compose("config", "--format", "json", env=SECRETS | further, gpu=gpu)
    assert result.returncode == 0, result.stderr
    found: dict[str, Manifest] = json.loads(result.stdout)["services"]
    return found


@functools.cache
def built(folder: str) -> list[Manifest]:
    result = tool("kubectl", "kustomize", KUBERNETES / folder)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def named(kind: str, name: str, folder: str = "overlays/gpu") -> Manifest:
    (found,) = (m for m in built(folder) if m["kind"] == kind and m["metadata"]["name"] == name)
    return found


def pods(folder: str = "overlays/gpu") -> dict[str, Manifest]:
    """Specifications of pods by the name of what makes them."""
    makers = [m for m in built(folder) if "template" in m.get("spec", {})]
    found: dict[str, Manifest] = {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in makers}
    return found


def container(pod: Manifest) -> Manifest:
    only: Manifest
    (only,) = pod["containers"]
    assert "initContainers" not in pod
    return only


def values_of(found: Any, key: str) -> Iterator[Any]:
    """Everything that stands under ``key``, at any depth."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    elif isinstance(found, list):
        for value in found:
            yield from values_of(value, key)


def environment_of(name: str, folder: str) -> dict[str, str]:
    """What a pod sees that is no secret."""
    found = container(pods(folder)[name])
    assert found["envFrom"] == [{"configMapRef": {"name": "pngnoise-client"}}]
    config: dict[str, str] = named("ConfigMap", "pngnoise-client", folder)["data"]
    return config | {entry["name"]: entry.get("value", "") for entry in found["env"]}


def chosen(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a selector of Kubernetes takes something with these labels."""
    test = {"In": lambda e: labels.get(e["key"]) in e["values"], "Exists": lambda e: e["key"] in labels}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        test[e["operator"]](e) for e in selector.get("matchExpressions", [])
    )


def callers(policy: str, called: dict[str, str], folder: str) -> set[str]:
    """Who of the pods a network policy lets in to a pod with the labels ``called``."""
    spec = named("NetworkPolicy", policy, folder)["spec"]
    assert chosen(spec["podSelector"], called)
    makers = [m for m in built(folder) if "template" in m.get("spec", {})]
    labels = {m["metadata"]["name"]: m["spec"]["template"]["metadata"]["labels"] for m in makers}
    selectors = [s["podSelector"] for rule in spec["ingress"] for s in rule["from"] if "podSelector" in s]
    return {name for name, own in labels.items() if any(chosen(s, own) for s in selectors)}


def may_use_a_cluster(deployment: Manifest) -> bool:
    module, name = deployment["entrypoint"].replace("/", ".").split(".py:")
    parameters = get_type_hints(getattr(importlib.import_module(module), name).fn)["parameters"]
    return "ClusterConfig" in parameters.model_json_schema().get("$defs", {})


def image_files() -> str:
    paths = [p for p in INFRA.rglob("*") if p.is_file()]
    return "\n".join(p.read_text() for p in [*paths, ROOT / "configs" / "clusters" / "kubernetes.yaml"])


# Style and syntax, by each format's own tool.


def test_yaml_passes_its_linter() -> None:
    result = tool("yamllint", "--strict", "-c", ".yamllint.yaml", "infra", "configs", ".yamllint.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_compose_accepts_the_file_once_all_secrets_are_there() -> None:
    assert compose("config", "-q", env=SECRETS).returncode == 0
    assert compose("config", "-q", env=SECRETS, gpu=True).returncode == 0


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_compose_names_the_secret_that_is_missing(name: str, value: str | None) -> None:
    given = {k: v for k, v in SECRETS.items() if k != name} | ({} if value is None else {name: value})
    result = compose("config", "-q", env=given)
    assert result.returncode != 0
    assert name in result.stderr
    assert not any(other in result.stderr for other in SECRETS if other != name)


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_knows_every_field(folder: str, version: str) -> None:
    example = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text())
    for manifest in [*built(folder), example]:
        kubernetes_validate.validate(manifest, version, strict=True)


# Nobody is root, nobody writes to an image, nobody is seen from outside.


@pytest.mark.parametrize("name", sorted(services()))
def test_a_service_has_no_privilege_and_a_read_only_root(name: str) -> None:
    service = services()[name]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)
    assert any(entry.split(":")[0] == "/tmp" for entry in service["tmpfs"])
    if service["image"].startswith("pngnoise"):  # HOME of the image
        writable = [v["target"] for v in service.get("volumes", [])] + [t.split(":")[0] for t in service["tmpfs"]]
        assert "/data" in writable


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert {port["target"] for port in published} == {4200, 8333}
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_the_database_is_for_the_server_alone() -> None:
    assert {n for n, s in services().items() if "database" in s["networks"]} == {"postgres", "server"}
    assert list(services()["postgres"]["networks"]) == ["database"]
    rule = named("NetworkPolicy", "database")["spec"]["ingress"]
    assert list(values_of(rule, "matchLabels")) == [{"app.kubernetes.io/name": "server"}]


@pytest.mark.parametrize("name", sorted(pods()))
def test_a_pod_is_restricted_and_has_a_read_only_root(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all("hostPath" not in volume for volume in pod["volumes"])
    only = container(pod)
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert only["resources"]["limits"]["memory"]
    assert {"cpu", "memory"} <= set(only["resources"]["requests"])
    assert pod["terminationGracePeriodSeconds"] > 0
    mounts = {mount["mountPath"] for mount in only["volumeMounts"]}
    assert {"/tmp"} | ({"/data"} if only["image"].startswith("pngnoise") else set()) <= mounts
    # A Service `server` would give every pod PREFECT-like variables of its own.
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("folder", FOLDERS)
def test_workers_that_run_flows_with_clusters_may_start_them_and_reach_them(folder: str) -> None:
    pools = {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS if may_use_a_cluster(deployment)}
    assert "gpu" in pools  # corpora
    (subject,) = named("RoleBinding", "dask-clusters", folder)["subjects"]
    assert named("ServiceAccount", subject["name"], folder)
    for pool in pools:
        pod = pods(folder)[f"worker-{pool}"]
        assert pod["serviceAccountName"] == subject["name"]
        assert pod.get("automountServiceAccountToken", True)
        assert f"worker-{pool}" in callers("dask", {"dask.org/cluster-name": "x"}, folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_who_calls_the_server_is_let_in(folder: str) -> None:
    asking = {name for name, pod in pods(folder).items() if list(values_of(pod, "configMapRef"))}
    assert callers("server", {"app.kubernetes.io/name": "server"}, folder) == asking == {"deploy", "samples", *WORKERS}


def test_only_workers_have_a_token_and_they_can_make_no_pod() -> None:
    assert [name for name, pod in pods().items() if pod.get("automountServiceAccountToken", True)] == WORKERS
    writes = {"create", "update", "patch", "delete", "*"}
    for rule in named("Role", "dask-clusters")["rules"]:
        assert "secrets" not in rule["resources"]
        if rule["apiGroups"] != ["kubernetes.dask.org"]:
            assert not writes & set(rule["verbs"])
    assert not [m for m in built("overlays/gpu") if m["kind"].startswith("Cluster")]


# Secrets.


def test_what_is_secret_comes_from_the_environment_of_compose() -> None:
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            if SECRET_NAME.search(variable):
                assert any(secret in value for secret in SECRETS.values()), (name, variable)
    assert not any(secret in (INFRA / "compose.yaml").read_text() for secret in SECRETS.values())


def test_a_service_knows_only_the_secrets_that_it_needs() -> None:
    def knows(secret: str) -> set[str]:
        return {n for n, s in services().items() if SECRETS[secret] in json.dumps(s.get("environment", {}))}

    assert knows("PNGNOISE_DB_PASSWORD") == {"postgres", "server"}
    assert knows("PNGNOISE_API_AUTH") == {"server", "deploy", "samples", *WORKERS}
    assert knows("PNGNOISE_S3_SECRET_KEY") == {"s3", "bucket", "deploy", "samples", *WORKERS}
    mine = {key for pod in [pods()["server"]] for key in values_of(pod, "key")}
    assert mine == {"POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING"}


def test_what_is_secret_is_only_referred_to_in_kubernetes() -> None:
    assert not [m for m in built("overlays/gpu") if m["kind"] == "Secret"]
    for name, pod in pods().items():
        for entry in container(pod).get("env", []):
            if SECRET_NAME.search(entry["name"]) and "valueFrom" not in entry:
                assert "$(POSTGRES_PASSWORD)" in entry["value"], (name, entry)
    config = named("ConfigMap", "pngnoise-client")["data"]
    assert not [key for key in config if SECRET_NAME.search(key)]


def test_examples_of_secrets_are_empty_and_complete() -> None:
    def read(path: Path) -> dict[str, str]:
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        return dict(line.split("=", 1) for line in lines)

    assert read(INFRA / ".env.example") == dict.fromkeys(SECRETS, "")
    keys = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text())["stringData"]
    assert set(keys.values()) == {""}
    assert read(KUBERNETES / "secret.env.example") == keys
    cluster = load_cluster(str(ROOT / "configs" / "clusters" / "kubernetes.yaml")).options
    asked = [reference for found in [*pods().values(), cluster] for reference in values_of(found, "secretKeyRef")]
    assert {(reference["name"], reference["key"]) for reference in asked} == {("pngnoise", key) for key in keys}


# One version, and what is named exists.


def test_one_version_of_the_image_everywhere() -> None:
    assert set(re.findall(r"pngnoise-(?:cpu|cuda):([\w.{}$-]+)", image_files())) == {VERSION}
    ours = {"pngnoise-cpu", "pngnoise-cuda"}
    assert {s["image"].split(":")[0] for s in services().values()} >= ours
    others = {s["image"] for s in services().values()} | {container(p)["image"] for p in pods().values()}
    assert len({image.split(":")[0] for image in others}) == len(others)  # none in two versions
    for image in others:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", image), f"{image} is not pinned"


def test_programs_and_options_that_are_started_exist() -> None:
    commands = [s["command"] for s in services().values() if s["image"].startswith("pngnoise")]
    commands += [c["args"] for c in map(container, pods().values()) if c["image"].startswith("pngnoise")]
    for command in commands:
        if command[0] == "sh":
            assert (ROOT / command[1]).exists(), command
        else:
            assert Path(sys.executable).with_name(command[0]).exists(), command
    for verb in ("worker", "server"):
        known = tool("prefect", verb, "start", "--help", env={"COLUMNS": "200"}).stdout
        used = {word for c in commands if c[:2] == ["prefect", verb] for word in c if word.startswith("--")}
        assert used
        assert all(option in known for option in used)
    cluster = load_cluster(str(ROOT / "configs" / "clusters" / "kubernetes.yaml")).options
    assert Path(sys.executable).with_name(cluster["worker_command"].split()[0]).exists()


def test_references_within_kubernetes_lead_somewhere() -> None:
    config = named("ConfigMap", "pngnoise-client")["data"]
    cluster = load_cluster(str(ROOT / "configs" / "clusters" / "kubernetes.yaml")).options
    for reference in values_of(cluster, "configMapKeyRef"):
        assert reference["name"] == "pngnoise-client"
        assert reference["key"] in config
    assert cluster["namespace"] == named("Namespace", "pngnoise")["metadata"]["name"]
    for pod in pods().values():
        only = container(pod)
        assert {mount["name"] for mount in only["volumeMounts"]} >= {volume["name"] for volume in pod["volumes"]}
        assert {reference["name"] for reference in values_of(only, "configMapRef")} <= {"pngnoise-client"}
        ports = {port["name"] for port in only.get("ports", [])}
        assert (
            set(values_of([only.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness")], "port"))
            <= ports
        )
    templates = [m["spec"]["template"] for m in built("overlays/gpu") if "template" in m.get("spec", {})]
    labels = [template["metadata"]["labels"] for template in templates]
    for service in (m for m in built("overlays/gpu") if m["kind"] == "Service"):
        assert any(service["spec"]["selector"].items() <= own.items() for own in labels)
    host = re.fullmatch(r"http://(\w+):4200/api", config["PREFECT_API_URL"])
    assert host
    assert named("Service", host[1])["spec"]["ports"][0]["port"] == 4200


# Workers.


@pytest.mark.parametrize("gpu", [False, True])
def test_every_pool_of_the_deployments_has_one_worker(gpu: bool) -> None:
    """A run in a pool that nobody asks is Late for ever."""
    asked = {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS}
    inside = [container(pod)["args"] for pod in pods(FOLDERS[gpu]).values() if "args" in container(pod)]
    for commands in ([s["command"] for s in services(gpu).values() if s["command"]], inside):
        polled = [c[c.index("--pool") + 1] for c in commands if c[:2] == ["prefect", "worker"]]
        assert sorted(polled) == sorted(asked) == ["cpu", "gpu"]


@pytest.mark.parametrize(
    ("pool", "gpu", "device"),
    [("cpu", False, "cpu"), ("gpu", False, "cpu"), ("cpu", True, "cpu"), ("gpu", True, "cuda")],
)
def test_a_worker_beats_and_asks_for_its_own_pool(pool: str, gpu: bool, device: str) -> None:
    name = f"worker-{pool}"
    service, pod = services(gpu)[name], container(pods(FOLDERS[gpu])[name])
    for started, command, environment in (
        (service, service["command"], service["environment"]),
        (pod, pod["args"], environment_of(name, FOLDERS[gpu])),
    ):
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
        assert environment["PNGNOISE_DEVICE"] == device
        assert started["image"] == f"pngnoise-{device}:{VERSION}"
        assert environment["PNGNOISE_STORAGE"].startswith("s3://")
        assert {"PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"} <= set(
            environment
        )
        assert command[command.index("--pool") + 1] == pool
        assert command[command.index("--type") + 1] == "process"
        assert "--with-healthcheck" in command
    assert service["build"]["target"] == device


@pytest.mark.parametrize("gpu", [False, True])
def test_two_trainings_never_share_a_device(gpu: bool) -> None:
    service, pod = services(gpu)["worker-gpu"], container(pods(FOLDERS[gpu])["worker-gpu"])
    for command in (service["command"], pod["args"]):
        assert command[command.index("--limit") + 1] == "1"
    assert named("Deployment", "worker-gpu", FOLDERS[gpu])["spec"]["replicas"] == 1
    assert environment_of("worker-gpu", FOLDERS[gpu])["PNGNOISE_GPU_SLOTS"] == "1"
    assert services(gpu)["deploy"]["environment"]["PNGNOISE_GPU_SLOTS"] == "1"


def test_one_worker_has_a_gpu_and_nobody_else_asks_for_one() -> None:
    (device,) = services()["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert container(pods()["worker-gpu"])["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {t["key"] for t in pods()["worker-gpu"]["tolerations"]} == {"nvidia.com/gpu"}
    without = [*services(False).values(), *pods("base").values()]
    others = [found for group in (services(), pods()) for name, found in group.items() if name != "worker-gpu"]
    for text in map(json.dumps, [*without, *others]):
        assert not re.search(r"nvidia|cuda", text)


# Something to read.


@pytest.mark.parametrize("gpu", [False, True])
def test_samples_run_once_by_themselves_with_what_they_need(gpu: bool) -> None:
    service, job = services(gpu)["samples"], named("Job", "samples", FOLDERS[gpu])["spec"]["template"]["spec"]
    assert service["command"] == container(job)["args"] == ["sh", "infra/docker/samples.sh"]
    assert service["restart"] == "on-failure:5"
    assert job["restartPolicy"] == "OnFailure"
    assert {"server", "bucket"} <= set(service["depends_on"])
    needed = {"PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PNGNOISE_STORAGE", "PNGNOISE_PATCHES", "AWS_ENDPOINT_URL"}
    assert needed | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(service["environment"])
    assert needed | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(environment_of("samples", FOLDERS[gpu]))


@pytest.mark.parametrize("name", ["samples", *WORKERS])
def test_a_store_of_ones_own_is_passed_on(name: str) -> None:
    assert services()[name]["environment"]["PNGNOISE_PATCHES"] == ""
    assert services(PNGNOISE_PATCHES="s3://mine")[name]["environment"]["PNGNOISE_PATCHES"] == "s3://mine"
    assert environment_of(name, "base")["PNGNOISE_PATCHES"] == ""


def test_the_readme_has_every_variable_that_is_passed_on() -> None:
    text = (INFRA / "README.md").read_text()
    passed = {v for s in services().values() for v in s.get("environment", {})} | set(
        named("ConfigMap", "pngnoise-client")["data"]
    )
    assert [v for v in sorted(passed) if v.startswith("PNGNOISE_") and f"`{v}`" not in text] == []


def test_the_server_asks_for_a_password_and_sends_no_analytics() -> None:
    server = services()["server"]["environment"]
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == SECRETS["PNGNOISE_API_AUTH"]
    assert server["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert server["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://prefect:db-sentinel@")
    assert services()["worker-cpu"]["environment"]["PREFECT_API_AUTH_STRING"] == SECRETS["PNGNOISE_API_AUTH"]
    in_pod = {entry["name"]: entry for entry in container(pods()["server"])["env"]}
    assert in_pod["PREFECT_SERVER_API_AUTH_STRING"]["valueFrom"]["secretKeyRef"]["key"] == "PREFECT_API_AUTH_STRING"
    assert in_pod["PREFECT_SERVER_ANALYTICS_ENABLED"]["value"] == "false"
