"""What the script of `samples` calls pngnoise with: a stand-in for pngnoise writes it down."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from flows.cli.app import app
from tasks.corpus.plan import CorpusParameters
from tasks.runtime.placeholders import resolve_placeholders

ROOT = Path(__file__).parents[3]


def samples_script(folder: Path, **environment: str) -> list[list[str]]:
    """What the script of `samples` calls pngnoise with."""
    (folder / "pngnoise").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{folder}/calls"\n')
    (folder / "pngnoise").chmod(0o755)
    seen = {"PATH": f"{folder}:{os.environ['PATH']}", "PNGNOISE_STORAGE": "s3://pngnoise"} | environment
    subprocess.run(["sh", "infra/docker/samples.sh"], cwd=ROOT, env=seen, check=True, timeout=30)
    calls = folder / "calls"
    return [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []


def test_samples_make_the_store_that_deployments_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest, patches = samples_script(tmp_path, PNGNOISE_PATCHES="")
    asked = [app.parse_args(call, exit_on_error=False)[1].arguments for call in (ingest, patches)]
    assert [call[0] for call in (ingest, patches)] == ["ingest", "patches"]
    monkeypatch.setenv("PNGNOISE_STORAGE", "s3://pngnoise")
    monkeypatch.delenv("PNGNOISE_PATCHES", raising=False)
    assert resolve_placeholders(CorpusParameters(output="{patches}")).output == asked[1]["output"]
    assert asked[1]["catalogue"] == asked[0]["output"]
    # The deployments cut crops of 128 out of the patches.
    assert asked[1]["size"] == 128
    for path in ("pngmodel/samples", "configs/datasets/samples.yaml"):
        assert path in ingest
        assert (ROOT / path).exists()


def test_samples_make_nothing_where_a_store_is_named(tmp_path: Path) -> None:
    assert samples_script(tmp_path, PNGNOISE_PATCHES="s3://mine/patches") == []
