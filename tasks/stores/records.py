"""Commit records of patch stores and corpora; `pngnoise schema` prints them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tasks.stores.commits import SHA256, CommitRecord, PartsRecord, StrictModel
from tasks.stores.io.relative_path import RelativePath
from tasks.stores.layout import Layout


class Moments(StrictModel):
    """Mean and standard deviation over all pixels, per channel, as fractions of the data range."""

    mean: list[float]
    std: list[float]


class Statistics(StrictModel):
    """Statistics of a patch store. Exact for integer images."""

    patches: dict[str, dict[str, int]] = Field(description="patches by dataset, camera, iso and split")
    levels: dict[str, Moments] = Field(description="by kind: clean and noise (noisy - clean); or image, of one array")
    saturated: float = Field(ge=0, le=1, description="share of values at 0 or the maximum; of noisy if present")
    raw_bytes: int = Field(description="uncompressed bytes of all arrays")
    stored_bytes: int = Field(description="bytes of all shard objects")


class ImageStoreRecord(CommitRecord):
    """What the commit records of patch stores and corpora have in common."""

    format_version: Literal[4]
    layout: Layout
    recipe: dict[str, Any] = Field(description="everything that determines the content")
    arrays: dict[RelativePath, str] = Field(description=f"{SHA256}, of every array's zarr.json, by path")


class ShardsRecord(ImageStoreRecord, PartsRecord):
    """The record of a store of images that lists its shards."""


class PatchStoreRecord(ShardsRecord):
    """store.json, the commit record of a patch store."""

    format: Literal["pngnoise-patches"]
    rejected: list[dict[str, str]] = Field(description="catalogue entries without a patch: id, reason")
    statistics: Statistics


class CorpusRecord(ImageStoreRecord):
    """corpus.json, the commit record of a corpus."""

    format: Literal["pngnoise-corpus"]
    mode: Literal["pairs", "noisy", "recipe"] = Field(description="which images are stored")
    accepted: int = Field(ge=0, description="pairs that passed the quality gate")
    rejected: dict[str, int] = Field(description="rejected pairs by reason; the manifest lists them")
    override: str | None = Field(
        description="reason for publishing although the quality gate failed; null if it passed"
    )
    unused_clean: int = Field(ge=0, description="clean images that were not used; clean.parquet has the reasons")
    metrics: dict[str, dict[str, float]] = Field(description="metrics of model, baselines and floor")
    protocol: str
    stored_bytes: int = Field(ge=0, description="bytes of all shard objects")
    files: dict[RelativePath, str] = Field(description=f"{SHA256}, of every file that is not a shard, by path")
