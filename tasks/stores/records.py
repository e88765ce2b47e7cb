"""What store.json and corpus.json hold: one model each, checked on writing and on opening, printed as JSON schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.stores.io.relative_path import RelativePath
from tasks.stores.layout import Layout

SHA256 = "sha256, hexadecimal"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ShardObject(_Record):
    """One object: a shard of one array."""

    sha256: str = Field(description=f"{SHA256}, of the whole object")
    index_sha256: str = Field(description=f"{SHA256}, of the index at its end, checksum included")
    bytes: int = Field(ge=1, description="size of the object")


class Part(_Record):
    """One shard."""

    part: RelativePath = Field(description="path of its Parquet table in the store")
    sha256: str = Field(description=f"{SHA256}, of that table's file")
    objects: dict[str, ShardObject] = Field(description="by array: clean, noisy")


class Levels(_Record):
    """Mean and standard deviation over all pixels, a value per channel, fractions of full scale."""

    mean: list[float]
    std: list[float]


class Statistics(_Record):
    """What is in a patch store. Exact for integers: made of sums of integers."""

    patches: dict[str, dict[str, int]] = Field(description="patches by dataset, camera, iso and split")
    levels: dict[str, Levels] = Field(description="by kind: clean and noise (noisy - clean); or image, of one array")
    saturated: float = Field(ge=0, le=1, description="share of values at 0 or full scale; of noisy where it is there")
    raw_bytes: int = Field(description="uncompressed bytes of all arrays")
    stored_bytes: int = Field(description="bytes of all shard objects")


class StoreRecord(_Record):
    """What the commit records of patch stores and corpora have in common."""

    kind: str
    format_version: Literal[3]
    layout: Layout
    recipe: dict[str, Any] = Field(description="everything that decides the content")
    licence: str = Field(description="licences of the sources, separated by '; '")
    packages: dict[str, str] = Field(description="versions of what decides the bytes")
    arrays: dict[RelativePath, str] = Field(description=f"{SHA256}, of every array's zarr.json, by path")
    digest: str = Field(description="over plan and parts: equal content has equal digests")
    record_sha256: str = Field(description=f"{SHA256}, of this record without this key: JSON, sorted keys, no spaces")


class PartsRecord(StoreRecord):
    """A record that lists its shards; a corpus has too many of them for that."""

    parts: list[Part] = Field(description="in order of the shards")


class PatchStoreRecord(PartsRecord):
    """store.json, the commit record of a patch store."""

    format: Literal["pngnoise-patches"]
    rejected: list[dict[str, str]] = Field(description="catalogue entries without a patch: id, reason")
    statistics: Statistics


class CorpusRecord(StoreRecord):
    """corpus.json, the commit record of a corpus."""

    format: Literal["pngnoise-corpus"]
    mode: Literal["pairs", "noisy", "recipe"] = Field(description="what is stored of the pairs")
    accepted: int = Field(ge=0, description="pairs that passed the quality gate")
    rejected: dict[str, int] = Field(description="pairs that did not, by reason; the manifest and the gate say which")
    override: str | None = Field(description="why it was published although the quality gate failed; null: it passed")
    unused_clean: int = Field(ge=0, description="clean images that were not used; clean.parquet says why")
    metrics: dict[str, dict[str, float]] = Field(description="protocol figures of model, baselines and floor")
    protocol: str
    stored_bytes: int = Field(ge=0, description="bytes of all shard objects")
    files: dict[RelativePath, str] = Field(description=f"{SHA256}, of every file that is no shard, by path")
