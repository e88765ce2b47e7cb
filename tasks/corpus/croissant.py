"""Croissant metadata of a corpus (MLCommons Croissant 1.0): what dataset search engines and ML frameworks read.

It names no place and no time, as nothing in a corpus does, so that equal corpora have equal files. ``url`` and
``datePublished``, which the specification wants, are added by whoever puts a corpus on the web.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tasks.corpus.plan import CorpusPlan
from tasks.stores.corpus_store import CARD, CLEAN_IMAGES, MANIFEST_SCHEMA, manifest_name, manifest_shards
from tasks.stores.layout import NOISY

_PARQUET, _JSON, _OBJECT = "application/x-parquet", "application/json", "application/octet-stream"
_CR = "http://mlcommons.org/croissant/"
_TERMS = (  # of Croissant, short names of which its contexts have
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": _CR,
    "rai": f"{_CR}RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_COLUMNS = {
    "sample": "number of the pair",
    "clean": "name of the clean image",
    "clean_licence": "licence of the clean image",
    "y": "first row of the patch in the clean image, pixels",
    "x": "first column of the patch in the clean image, pixels",
    "repeat": "which of the independent draws on this patch",
    "reference": "name of the real pair whose noise is imitated",
    "reference_camera": "camera of the reference",
    "reference_iso": "ISO of the reference",
    "reference_licence": "licence of the reference",
    "prompt_source": "reference: prompts read off the pair; bank: out of a prompt bank",
    "seed": "seed of the draw",
    "clean_mean": "mean of the clean patch, fraction of full scale",
    "noise_mean": "mean of noisy - clean, fraction of full scale",
    "noise_std": "std of noisy - clean, fraction of full scale",
    "expected_std": "std of the reference's noise at these intensities, fraction of full scale",
    "saturated": "share of the noisy values at 0 or full scale",
    "noise_sha256": "sha256 of noisy - clean",
    "sha256": "sha256 of the clean and then the noisy values, channel first",
    "accepted": "whether the pair passed the quality gate",
    "reason": "why it did not",
}


def croissant(plan: CorpusPlan, files: dict[str, str]) -> dict[str, Any]:
    """The content of croissant.json.

    Args:
        plan: of the corpus.
        files: sha256 of its files by path.
    """
    layout, stored = plan.layout, plan.parameters.mode != "recipe"
    manifest = [manifest_name(number) for number in range(len(manifest_shards(layout)))] if stored else []
    distribution = [_file(name, files[name], _PARQUET) for name in [CLEAN_IMAGES, *manifest]]
    distribution.append(_file(CARD, files[CARD], "text/markdown"))
    if stored:
        distribution.append(_file_set("manifest-files", _PARQUET, ["manifest/*.parquet"], "the manifest, file by file"))
        distribution.append(_file_set("parts", _PARQUET, ["parts/*.parquet"], "rows and digests, shard by shard"))
        for array in layout.arrays:
            axes = "(draws, N, C, H, W)" if array == NOISY else "(N, C, H, W)"
            text = f"shard objects of the Zarr v3 array {array}, {axes}, {layout.dtype}"
            distribution.append(_file_set(array, _OBJECT, [f"{array}/c/**"], text))
            distribution.append(_file_set(f"{array}-metadata", _JSON, [f"{array}/zarr.json"], f"metadata of {array}"))
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": f"{_CR}1.0",
        "name": f"pngnoise-corpus-{plan.recipe['clean'][:12]}-x{layout.repeats}",
        "description": (
            f"{layout.pairs} pairs of clean images and the same with synthetic camera noise, {layout.channels} x "
            f"{layout.height} x {layout.width}, {layout.dtype}, {layout.repeats} independent draws of noise per clean "
            f"patch. Stored: {plan.parameters.mode}."
        ),
        "license": plan.licence,
        "isLiveDataset": False,
        "distribution": distribution,
        "recordSet": [_records()] if stored else [],
    }


def _file(name: str, digest: str, kind: str) -> dict[str, Any]:
    facts = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name}
    return facts | {"encodingFormat": kind, "sha256": digest}


def _file_set(name: str, kind: str, includes: list[str], text: str) -> dict[str, Any]:
    facts = {"@type": "cr:FileSet", "@id": name, "name": name, "description": text}
    return facts | {"encodingFormat": kind, "includes": includes}


def _records() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "the manifest: a record per pair",
        "key": {"@id": "samples/sample"},
        "field": [_field(column) for column in MANIFEST_SCHEMA],
    }


def _field(column: pa.Field) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"samples/{column.name}",
        "name": column.name,
        "description": _COLUMNS[column.name],
        "dataType": _data_type(column.type),
        "source": {"fileSet": {"@id": "manifest-files"}, "extract": {"column": column.name}},
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
