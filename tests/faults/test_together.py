"""Several processes at one place at once: the same run, two configurations, readers beside a writer; wrong clocks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pngmodel.errors import UserError
from tasks.corpus.inspection import verify
from tasks.stores.corpus_store import Corpus
from tasks.stores.io.filesystem import read_json
from tests.faults.disk import WORDS, Job
from tests.servers import quietly

HERE = Path(__file__).parent
RUN = """
import sys
from flows.cli.console import user_errors
from tests.faults.made import make
with user_errors():
    make(*sys.argv[1:])
"""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def location(folder: Path, environment: pytest.MonkeyPatch) -> str:
    """Where corpora go; tests/campaigns has a bucket instead."""
    environment.setenv("PYTHONPATH", str(HERE.parents[1]))
    return str(folder / "corpora")


def start(images: str, output: str, **asked: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, images, output, json.dumps(asked)]
    return quietly(command, stderr=subprocess.PIPE)


def ended(run: subprocess.Popen[bytes]) -> tuple[int, str]:
    assert run.stderr
    said = run.stderr.read().decode()
    return run.wait(), said


def test_of_two_configurations_one_gets_the_place(images: str, location: str) -> None:
    output = f"{location}/other"
    runs = [start(images, output, seed=seed) for seed in (1, 2)]
    found = [ended(run) for run in runs]
    assert sorted(code for code, _ in found) == [0, WORDS], found
    (said,) = (said for code, said in found if code)
    assert f"{output}: holds a different corpus; different settings: recipe.seed" in said
    won = next(seed for seed, (code, _) in zip((1, 2), found, strict=True) if code == 0)
    assert read_json(f"{output}/corpus.json")["recipe"]["seed"] == won
    assert verify(output)["verified"]


def test_a_reader_sees_nothing_or_a_whole_corpus(images: str, location: str) -> None:
    """Beside the run that makes it, and beside one that adds draws."""
    output, stop = f"{location}/read", threading.Event()
    seen: dict[int, set[str]] = {}
    refused: list[str] = []
    wrong: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                corpus = Corpus.open(output)
                for pair in range(0, len(corpus), 9):
                    clean, noisy = corpus.read(pair)
                    assert not np.array_equal(clean, noisy)
            except UserError as error:
                refused.append(str(error))
            except BaseException as error:
                wrong.append(error)
            else:
                seen.setdefault(len(corpus), set()).add(corpus.digest)
            stop.wait(0.02)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for scale in (1, 2):
            code, said = ended(start(images, output, scale=scale))
            assert code == 0, said
        half = len(Corpus.open(output)) // 2
        stop.wait(1)
    finally:
        stop.set()
        reader.join()
    assert wrong == []
    assert all("corpus.json: missing" in told for told in refused), set(refused)
    assert refused
    assert sorted(seen) == [half, 2 * half]
    assert all(len(digests) == 1 for digests in seen.values())


def test_wrong_clocks_change_nothing(
    faulty_disk: str, calm_disk: dict[str, str], images: str, small_training: Path, tmp_path: Path
) -> None:
    """A machine whose clock is a year ahead breaks off, one that is a year behind goes on."""
    job, year = Job(images, tmp_path / "disk", small_training), 365 * 24 * 3600
    ahead = {"LD_PRELOAD": faulty_disk, "FAULT_CLOCK": str(year)}
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env=os.environ | ahead,
        capture_output=True,
        check=True,
    )
    assert float(told.stdout) - time.time() > 0.9 * year
    full = {"FAULT_ROOT": str(tmp_path / "disk/corpus"), "FAULT_CALLS": "write", "FAULT_ERRNO": str(errno.ENOSPC)}
    assert not job.run(**ahead, **full, FAULT_PERMILLE="200", FAULT_SEED="3")
    for path in (tmp_path / "disk").rglob("*"):
        os.utime(path, (path.stat().st_atime + year,) * 2)
    assert job.run(**ahead | {"FAULT_CLOCK": str(-year)})
    assert job.tree() == calm_disk
