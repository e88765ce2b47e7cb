"""The main job as a user runs it: command line, own process, own folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

PNGNOISE = Path(sys.executable).parent / "pngnoise"
pytestmark = pytest.mark.timeout(900)


def environment(home: Path) -> dict[str, str]:
    """What a fresh shell has, with the run history in ``home``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(home), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}


def pngnoise(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PNGNOISE, *arguments],
        cwd=folder,
        env=environment(folder / ".prefect") | changes,
        capture_output=True,
        text=True,
        check=False,
    )


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every file."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "sources.json")  # which names places
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="module")
def quickstart(workplace: Path) -> dict[str, object]:
    done = pngnoise(workplace, "quickstart", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_quickstart_publishes_a_corpus_that_verifies(workplace: Path, quickstart: dict[str, object]) -> None:
    corpus = workplace / "quickstart"
    assert quickstart["pairs"] == 32
    assert json.loads((corpus / "corpus.json").read_text())["digest"] == quickstart["digest"]
    report = (corpus / "report.html").read_text()
    assert report.count("data:image/png;base64,") >= 5
    assert "http://" not in report
    assert "https://" not in report
    checked = pngnoise(workplace, "verify", "quickstart", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["verified"] is True


def test_quickstart_pairs_are_what_the_manifest_says(workplace: Path, quickstart: dict[str, object]) -> None:
    corpus = workplace / "quickstart"
    files = sorted((corpus / "manifest").glob("*.parquet"))
    rows = [row for file in files for row in pq.ParquetFile(file).read(use_threads=False).to_pylist()]
    group = zarr.open_consolidated(str(corpus))
    clean, noisy = group["clean"], group["noisy"]
    assert len(rows) == quickstart["pairs"] == noisy.shape[0] * noisy.shape[1]
    assert (noisy.shape[0], noisy.shape[1]) == (4, clean.shape[0])
    for row in rows[::7]:
        repeat, image = row["repeat"], row["sample"] % clean.shape[0]
        pixels = np.asarray(clean[image]).tobytes() + np.asarray(noisy[repeat, image]).tobytes()
        assert hashlib.sha256(pixels).hexdigest() == row["sha256"]
    assert {row["repeat"] for row in rows} == {0, 1, 2, 3}


def test_shipped_model_beats_what_ten_lines_can_do(quickstart: dict[str, object]) -> None:
    """Rounded KLD and lag-1 error below those of AWGN and of a heteroscedastic Gaussian, on held-out blocks."""
    metrics = quickstart["metrics"]
    assert isinstance(metrics, dict)
    for metric in ("kld_naflow_rounded", "lag1_error"):
        for rival in ("awgn", "heteroscedastic"):
            assert metrics["model"][metric] < metrics[rival][metric], (metric, rival)


def test_run_history_is_kept_where_it_was_asked_to_be(workplace: Path, quickstart: dict[str, object]) -> None:
    listed = subprocess.run(
        [PNGNOISE.parent / "prefect", "flow-run", "ls", "--output", "json"],
        env=environment(workplace / ".prefect"),
        capture_output=True,
        text=True,
        check=True,
    )
    runs = json.loads(listed.stdout)
    assert [r["state"]["type"] for r in runs if r["name"].startswith("corpus ")] == ["COMPLETED"]


def test_killed_and_run_again_gives_equal_bytes(
    patches: str, folders: tuple[Path, Path], workplace: Path, tmp_path: Path
) -> None:
    """kill -9 between shards; the rerun keeps what was published and the whole tree equals an uninterrupted one."""
    output, whole = tmp_path / "killed", tmp_path / "whole"
    sources = ["--references", patches, "--clean", str(folders[0] / "clean"), "--model", "heteroscedastic"]
    sizes = ["--crop", "32", "--scale", "4", "--shard", "8"]
    command = ["generate", *sources, *sizes, "--json", "--output"]
    running = subprocess.Popen(
        [PNGNOISE, *command, str(output)],
        cwd=workplace,
        env=environment(workplace / ".prefect"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(output.glob("parts/*.parquet")):
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)  # the embedded server dies with it, as in a power cut
    running.wait()
    assert not (output / "corpus.json").exists()
    kept = [name for name in tree(output) if name.startswith("parts/")]
    assert 0 < len(kept) < 20
    again = pngnoise(workplace, *command, str(output), OMP_NUM_THREADS="3")  # nor do cores matter
    assert again.returncode == 0, again.stderr
    shards = json.loads(again.stdout)["shards"]
    assert shards == {"made": 20 - len(kept), "kept": len(kept)}
    uninterrupted = pngnoise(workplace, *command, str(whole))
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    assert tree(output) == tree(whole)
