"""The card of a Parquet export: front matter that Hugging Face's hub and ``datasets`` read, then words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from tasks.corpus.exports.pairs import CorpusPairs
from tasks.corpus.exports.protocol import Settings, Written
from tasks.reports.markdown import plain

_LICENCES = {
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
    "CC0": "cc0-1.0",
    "CC0-1.0": "cc0-1.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0",
}
"""The hub's words for licences of sources. Where it has none for one of them, they are ``other``, by their own name."""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "n>1M"


def dataset_card(settings: Settings, pairs: CorpusPairs, written: Iterable[Written]) -> str:
    """README.md of the export."""
    count = size = 0
    for share in written:
        count += share.pairs
        size += sum(file.bytes for file in share.files.values())
    front: dict[str, Any] = {
        **licence_keys(pairs.licence),
        "task_categories": ["image-to-image"],
        "tags": ["denoising", "camera-noise", "synthetic"],
        "size_categories": [next((words for limit, words in _SIZES if count < limit), _LARGEST)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        "dataset_info": {
            "config_name": "default",
            "splits": [{"name": "train", "num_bytes": size, "num_examples": count}],
            "download_size": size,
            "dataset_size": size,
        },
    }
    channels, height, width = pairs.shape
    sides = " and ".join(f"`{array}`" for array in pairs.arrays)
    skipped = len(pairs) - count
    gate = f"; {skipped} that the quality gate rejected are left out" if settings.accepted_only and skipped else ""
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# Noisy/clean image pairs

{count} pairs of {width} x {height} pixels, {channels} channels, {pairs.dtype}, made by pngnoise{gate}. {sides} are
lossless {settings.codec.upper()} files; the other columns are the corpus' manifest: where the clean image and the noise
come from, their licences, the seed, statistics of the noise.

Licences of the sources: {plain(pairs.licence)}

Corpus digest: `{pairs.digest}`

    from datasets import load_dataset
    pairs = load_dataset("parquet", data_files="data/train-*.parquet", split="train")
"""


def licence_keys(licence: str) -> dict[str, Any]:
    """The card's licence entries for the corpus' licences (separated by ``; ``)."""
    words = [re.sub(r" \(.*\)$", "", part) for part in licence.split("; ")]  # "MIT (SIDD)" says whose it is
    known = sorted({_LICENCES[word] for word in words if word in _LICENCES})
    if all(word in _LICENCES for word in words):
        return {"license": known[0] if len(known) == 1 else known}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")}
