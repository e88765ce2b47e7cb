"""The one-machine stack's settings and processes, without the programs that it starts."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.local.processes import RUN, ProcessRegistry, StackProcess, kill, terminate
from infra.local.settings import load_settings
from infra.local.stack import Stack
from pngmodel.errors import UserError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT = "import subprocess, sys, time; subprocess.Popen({child}, start_new_session=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"

DEAF_CHILD = [sys.executable, "-c", DEAF]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith(("PNGNOISE_", "PREFECT_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[ProcessRegistry]:
    found = ProcessRegistry(tmp_path / "stack")
    yield found
    kill([process for process, _ in found.processes()])


def test_processes_are_identified_by_environment_and_not_by_pid_alone(registry: ProcessRegistry) -> None:
    one = registry.start("sleeper", SLEEP, {})
    assert registry.running("sleeper") == one
    assert registry.process(StackProcess("another", one.pid, one.log)) is None
    assert ProcessRegistry(registry.folder / "other").process(one) is None
    assert ProcessRegistry(registry.folder).running("sleeper") == one
    terminate([psutil.Process(one.pid)], 10)
    assert registry.running("sleeper") is None
    registry.remove(["sleeper"])
    assert registry.entries() == []


def test_started_processes_handle_sigterm_and_write_logs(registry: ProcessRegistry) -> None:
    one = registry.start(
        "talker", [sys.executable, "-c", "print('hello', flush=True); import time; time.sleep(600)"], {}
    )
    deadline = time.monotonic() + 20
    while "hello" not in Path(one.log).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    psutil.Process(one.pid).send_signal(signal.SIGTERM)
    assert psutil.wait_procs([psutil.Process(one.pid)], timeout=10)[1] == []


def test_runs_are_found_whoever_is_their_parent(registry: ProcessRegistry) -> None:
    """A run has a session of its own, and another parent when its worker was killed."""
    one = registry.start("worker-cpu", [sys.executable, "-c", PARENT.format(child=SLEEP)], {RUN: "some run"})
    deadline = time.monotonic() + 20
    while len(registry.flow_runs()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill([psutil.Process(one.pid)])
    (run,) = registry.flow_runs()
    assert run.pid != one.pid
    assert terminate([run], 10) == []
    assert registry.flow_runs() == []


def test_down_ends_runs_that_ignore_it_and_whose_worker_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PNGNOISE_STACK", str(tmp_path / "stack"))
    monkeypatch.setattr("infra.local.stack._RUN_SECONDS", 0.5)
    stack = Stack(load_settings(), lambda line: None)
    stack.registry.start("worker-cpu", SLEEP, {})
    lost = stack.registry.start("worker-gpu-0", [sys.executable, "-c", PARENT.format(child=DEAF_CHILD)], {RUN: "a run"})
    deadline = time.monotonic() + 20
    while len(stack.registry.flow_runs()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill([psutil.Process(lost.pid)])
    assert stack.down() == ["worker-cpu", "worker-gpu-0"]
    assert list(stack.registry.processes()) == []


def test_two_commands_at_once_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PNGNOISE_STACK", str(tmp_path / "stack"))
    stack = Stack(load_settings(), lambda line: None)
    with stack._exclusive(), pytest.raises(UserError, match="another command is starting or stopping the stack"):
        Stack(load_settings(), lambda line: None).down()


def test_what_does_not_end_by_itself_is_returned_and_killed() -> None:
    deaf = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True)
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == "deaf\n"
    left = terminate([psutil.Process(deaf.pid)], 0.5)
    assert [p.pid for p in left] == [deaf.pid]
    kill(left)
    assert deaf.wait(10) is not None


def test_a_corrupted_list_of_processes_is_a_user_error(registry: ProcessRegistry) -> None:
    registry.folder.mkdir()
    (registry.folder / "processes.json").write_text("[{")
    with pytest.raises(UserError, match=r"processes\.json: is corrupted .*delete the file"):
        registry.entries()
    (registry.folder / "processes.json").unlink()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PNGNOISE_PREFECT_PORT", "web", r"PNGNOISE_PREFECT_PORT is 'web'"),
        ("PNGNOISE_GPU_SLOTS", "0", r"PNGNOISE_GPU_SLOTS is '0': .*greater than or equal to 1"),
    ],
)
def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        load_settings()


def test_the_environment_of_the_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PNGNOISE_STACK", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", "/somewhere/else")
    own = load_settings()
    assert own.own_storage
    assert own.own_server
    found = own.environment()
    assert found["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert found["AWS_ENDPOINT_URL"] == found["PNGNOISE_S3_WEB"] == "http://127.0.0.1:9008"
    assert (found["PREFECT_SERVER_ANALYTICS_ENABLED"], found["DO_NOT_TRACK"]) == ("false", "1")
    assert "PREFECT_API_AUTH_STRING" not in found


def test_slots_are_kept_on_disk_while_the_server_starts_again() -> None:
    module = load_settings().environment()["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    assert importlib.import_module(module).ConcurrencyLeaseStorage


def test_what_is_there_already_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.example")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "theirs")
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "user:secret")
    found = load_settings()
    assert not found.own_storage
    assert not found.own_server
    environment = found.environment()
    assert environment["AWS_ACCESS_KEY_ID"] == "theirs"
    assert environment["PREFECT_API_AUTH_STRING"] == "user:secret"
    assert "PNGNOISE_S3_WEB" not in environment


def test_empty_variables_count_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")
    found = load_settings()
    assert (found.own_storage, found.own_server) == (True, True)
    assert found.environment()["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9008"
    assert found.environment()["PREFECT_API_URL"] == found.api


def test_a_shell_that_knows_the_stack_may_start_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9008")
    monkeypatch.setenv("PREFECT_API_URL", "http://localhost:4200/api")
    assert (load_settings().own_storage, load_settings().own_server) == (True, True)


def test_amazons_own_storage_needs_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNGNOISE_OWN_S3", "false")
    found = load_settings()
    assert not found.own_storage
    assert "AWS_ENDPOINT_URL" not in found.environment()


def test_a_taken_port_is_said_with_the_variable_that_chooses_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("PNGNOISE_STACK", str(tmp_path / "stack"))
        monkeypatch.setenv("PNGNOISE_PREFECT_PORT", str(port))
        monkeypatch.setenv("PNGNOISE_STORAGE", str(tmp_path / "storage"))
        with pytest.raises(UserError, match=f"port {port} .* is used .*PNGNOISE_PREFECT_PORT"):
            Stack(load_settings(), lambda line: None).up()
    assert ProcessRegistry(tmp_path / "stack").entries() == []


def test_gpu_workers_have_one_slot_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNGNOISE_GPU_SLOTS", "3")
    workers = Stack(load_settings()).workers
    assert [slots for pool, slots in workers.values() if pool == "gpu"] == [1, 1, 1]


def test_down_of_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PNGNOISE_STACK", str(tmp_path / "stack"))
    assert Stack(load_settings()).down() == []
