"""What is killed and disturbed: a team's servers and workers on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3fs
import yaml

from tests.campaigns.kills import Campaign, Undisturbed
from tests.faults.disk import Job, build_faulty_disk
from tests.faults.processes import Launcher, Worker
from tests.faults.stages import Stage, stages, training
from tests.servers import PROGRAMS, Dask, Server, prefect_server, s3_server

ROOT = Path(__file__).resolve().parents[2]
POOL = "faults"
PAIRS, SIDE = 4, 128


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Of this process and its children, without what points to servers of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "PREFECT_", "PNGNOISE_"))]:
            patch.delenv(name)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (keys | {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}).items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what the tests of a module share."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def s3(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[Server]:
    """An S3-speaking server with a bucket called noise; the environment names it."""
    server = s3_server(folder / "s3", dict(os.environ))
    server.start()
    environment.setenv("AWS_ENDPOINT_URL", server.health.removesuffix("/_health"))
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("noise")
    yield server
    server.kill()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def prefect(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Prefect server; the environment names it."""
    server = prefect_server(folder / "prefect", dict(os.environ))
    server.start()
    environment.setenv("PREFECT_API_URL", server.health.removesuffix("/health"))
    environment.setenv("PREFECT_HOME", str(folder / "prefect-client"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def images(folder: Path, pair: Callable, save: Callable) -> str:
    """A folder of pairs that adapter ``folders`` reads."""
    for k in range(PAIRS):
        noisy, clean = pair(k, SIDE, SIDE)
        save(folder / "images" / "noisy" / f"scene_{k:02d}.png", noisy)
        save(folder / "images" / "clean" / f"scene_{k:02d}.png", clean)
    return str(folder / "images")


@pytest.fixture(scope="module")
def faulty_disk(folder: Path) -> str:
    """A library to preload, with which disks fail."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make the failing disk with")
    return build_faulty_disk(compiler, folder)


@pytest.fixture(scope="module")
def small_training(folder: Path) -> Path:
    """A training of seconds; its store is given to the command."""
    location = folder / "small.yaml"
    location.write_text(yaml.safe_dump(training("replaced", steps=4)))
    return location


@pytest.fixture(scope="module")
def calm_disk(images: str, folder: Path, small_training: Path, environment: pytest.MonkeyPatch) -> dict[str, str]:
    """What the main job makes on a disk that does not fail."""
    environment.setenv("PYTHONPATH", str(ROOT))
    job = Job(images, folder / "calm", small_training)
    assert job.run()
    return job.tree()


@pytest.fixture(scope="module")
def campaign(folder: Path, s3: Server, prefect: Server, images: str) -> Iterator[Callable[[int], Campaign]]:
    """A campaign of a seed; its stages are deployed, a worker waits for them."""
    variables = dict(os.environ)
    listed = stages(images, "s3://noise", folder)
    _deploy(listed, folder, variables)
    dask = Dask(folder / "dask", variables)
    dask.start()
    worker = Worker(variables, POOL, folder / "worker.log")
    worker.start()

    launcher, calm = Launcher(variables), Undisturbed()

    def make(seed: int) -> Campaign:
        return Campaign(folder, "s3://noise", listed, s3, prefect, dask, worker, launcher, variables, calm, seed)

    yield make
    launcher.stop()
    worker.kill(with_runs=True)
    dask.stop()


def _deploy(listed: list[Stage], folder: Path, environment: dict[str, str]) -> None:
    file = folder / "prefect.yaml"
    deployments = [
        {"name": stage.name, "entrypoint": stage.entrypoint, "work_pool": {"name": POOL}} for stage in listed
    ]
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    file.write_text(yaml.safe_dump({"pull": pull, "deployments": deployments}))
    for words in (
        ["work-pool", "create", POOL, "--type", "process"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
    ):
        done = subprocess.run(
            [str(PROGRAMS / "prefect"), *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
