"""Estimated clean images from and to object storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs

from pngmodel.errors import UserError
from tasks.corpus.inspection import verify
from tasks.datasets.extraction import finalise
from tasks.denoising.unpaired import EstimateParameters, estimate_clean


def test_estimates_are_the_same_wherever_they_lie(
    bucket: s3fs.S3FileSystem, patches: str, tmp_path: Path, tree: Callable[[Any], dict[str, bytes]]
) -> None:
    bucket.put(patches, "noise/patches", recursive=True)
    estimate_clean(EstimateParameters(store=patches, output=str(tmp_path / "out")))
    there = {"store": "s3://noise/patches", "output": "s3://noise/out"}
    for part in ("2/2", "1/2"):
        estimate_clean(EstimateParameters(**there, parts=part))
    with pytest.raises(UserError, match=r"s3://noise/out: this patch store is unfinished"):
        verify("s3://noise/out")
    finalise("s3://noise/out")
    found = {str(p).removeprefix("noise/out/"): bucket.cat_file(p) for p in bucket.find("noise/out")}
    assert found == tree(tmp_path / "out")
    bucket.rm("noise/out/clean/c/3/0/0/0")
    assert estimate_clean(EstimateParameters(**there))["made"] == 1
    assert verify("s3://noise/out")["verified"] is True
