"""What can be done with a corpus that is there: verify, repair, diff, gc, names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.maintenance import collect_garbage, compare_corpora, orphans, recorded_parameters, verify_corpus
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.stores.aliases import resolve_alias, write_alias
from tasks.stores.corpus_store import Corpus
from tasks.stores.io.filesystem import write_bytes, write_json
from tasks.stores.patch_store import PatchStore

Make = Callable[..., CorpusParameters]
Made = Callable[[CorpusParameters], Any]
Tree = Callable[[Any], dict[str, bytes]]


def verified(url: str, **options: Any) -> dict[str, Any]:
    with open_cluster(ClusterConfig()) as cluster:
        return verify_corpus(url, cluster, **options)


@pytest.fixture
def corpus(published: Callable[..., Path], tmp_path: Path) -> Path:
    """A published corpus of two samples per image, 10 shards."""
    return published(tmp_path / "corpora" / "c", 2)


def test_all_or_some_shards_are_verified(corpus: Path) -> None:
    assert verified(str(corpus)) == {
        "kind": "corpus",
        "verified": True,
        "pairs": 72,
        "shards": 10,
        "digest": Corpus.open(str(corpus)).digest,
    }
    assert verified(str(corpus), sample=3)["verified_shards"] == 3
    assert "verified_shards" not in verified(str(corpus), sample=10)
    (corpus / "noisy" / "c" / "1" / "2" / "0" / "0" / "0").write_bytes(b"torn")
    with pytest.raises(IntegrityError, match=r"1 problems in this corpus: .*noisy/c/1/2/0/0/0: sha256.*corpus repair"):
        verified(str(corpus))
    found = set()
    for seed in range(12):  # samples differ by seed, and are the same for one
        try:
            verified(str(corpus), sample=5, seed=seed)
            found.add(False)
        except IntegrityError:
            found.add(True)
    assert found == {True, False}


@pytest.mark.parametrize(
    ("damage", "made_anew"),
    [
        ({"noisy/c/1/2/0/0/0": b"torn"}, 1),
        ({"clean/c/3/0/0/0": None, "noisy/c/0/0/0/0/0": b""}, 2),
        ({"parts/00004.parquet": b"torn", "parts/00009.parquet": None}, 2),
        ({"manifest/00001.parquet": b"torn", "shards/00000.parquet": None}, 0),
        ({"corpus.json": b"{"}, 0),
        ({"corpus.json": b"{}", "gate.json": b"torn"}, 0),
        ({"gate.json": b"[]"}, 0),
        ({"clean.parquet": b"torn", "README.md": None}, 0),
        ({"zarr.json": b"{}", "noisy/zarr.json": None}, 0),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_repair_makes_what_is_damaged_and_nothing_else(
    corpus: Path, made: Made, tree: Tree, damage: dict[str, bytes | None], made_anew: int
) -> None:
    before = tree(corpus)
    times = {name: (corpus / name).stat().st_mtime_ns for name in before}
    touched = set(damage)
    for name, content in damage.items():
        (corpus / name).unlink()
        if content is not None:
            (corpus / name).write_bytes(content)
        if "/c/" in name or "parts/" in name:
            parts = name.split("/")
            k = (
                int(parts[-1][:5])
                if parts[0] == "parts"
                else 5 * int(parts[2]) + int(parts[3])
                if parts[0] == "noisy"
                else int(parts[2])
            )
            repeat, within = divmod(k, 5)
            touched |= {f"parts/{k:05d}.parquet", f"noisy/c/{repeat}/{within}/0/0/0", f"clean/c/{within}/0/0/0"}
    _, shards = made(recorded_parameters(str(corpus)))
    assert shards == {"made": made_anew, "kept": 10 - made_anew}
    after = tree(corpus)
    assert after == before
    objects = {name for name in before if "/c/" in name or name.startswith("parts/")}
    assert {n for n in objects if (corpus / n).stat().st_mtime_ns != times[n]} <= touched
    assert verified(str(corpus))["verified"]


def test_a_place_without_a_corpus_cannot_be_taken_up(corpus: Path, patches: str, tmp_path: Path) -> None:
    for location in (patches, str(tmp_path / "nothing")):
        with pytest.raises(UserError, match="no corpus was started there"):
            recorded_parameters(location)
    (corpus / "sources.json").unlink()
    with pytest.raises(UserError, match=r"sources\.json: missing; it records the locations of the sources"):
        recorded_parameters(str(corpus))


def test_sizes_are_enough_where_they_are_asked_for(parameters: Make, tmp_path: Path) -> None:
    asked = parameters(tmp_path / "c")
    make_corpus_shards(plan_corpus(asked))
    shard = tmp_path / "c" / "noisy" / "c" / "0" / "1" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(bytes(content))
    by_sizes = asked.model_copy(update={"check": "sizes"})
    assert make_corpus_shards(plan_corpus(by_sizes)) == {"made": 0, "kept": 5}
    shard.write_bytes(bytes(content[:-1]))
    assert make_corpus_shards(plan_corpus(by_sizes)) == {"made": 1, "kept": 4}
    shard.write_bytes(bytes(content))
    assert make_corpus_shards(plan_corpus(asked)) == {"made": 1, "kept": 4}


def test_corpora_are_compared(
    corpus: Path, published: Callable[..., Path], parameters: Make, made: Made, tmp_path: Path
) -> None:
    shutil.copytree(corpus, tmp_path / "copy")
    same = compare_corpora(str(corpus), str(tmp_path / "copy"))
    assert same["equal"]
    assert (same["differs_in"], same["metrics"]) == ({}, {})
    assert (same["equal_shards"], same["equal_samples"], same["shards"]) == (10, 72, [10, 10])
    published(tmp_path / "half")
    half = compare_corpora(str(corpus), str(tmp_path / "half"))
    assert not half["equal"]
    assert half["differs_in"] == {"repeats": [2, 1], "pairs": [72, 36]}
    assert (half["equal_shards"], half["samples_of_both"], half["equal_samples"]) == (5, 36, 36)
    made(parameters(tmp_path / "other", seed=1, scale=2))
    other = compare_corpora(str(corpus), str(tmp_path / "other"))
    assert other["differs_in"] == {"seed": [0, 1]}
    assert (other["equal_shards"], other["samples_of_both"], other["equal_samples"]) == (0, 72, 0)
    made(parameters(tmp_path / "recipe", mode="recipe", scale=2))
    assert compare_corpora(str(corpus), str(tmp_path / "recipe"))["differs_in"] == {"mode": ["pairs", "recipe"]}


def test_garbage_is_listed_and_then_deleted(
    corpus: Path, parameters: Make, patches: str, tmp_path: Path, tree: Tree
) -> None:
    before = tree(corpus)
    assert orphans(str(corpus)) == []
    location = str(corpus.parent)
    for name in ("noisy/c/2/0/0/0/0", "parts/.00001.parquet.12ab.writing", "notes.txt"):
        write_bytes(str(corpus / name), b"x")
    make_corpus_shards(plan_corpus(parameters(corpus.parent / "started")))
    shutil.copytree(patches, corpus.parent / "patches")
    write_alias(str(corpus), "latest", "0")
    expected = {
        "corpora": 1,
        "orphans": [f"{corpus}/{n}" for n in ("noisy/c/2/0/0/0/0", "notes.txt", "parts/.00001.parquet.12ab.writing")],
        "unfinished": [f"{location}/started"],
    }
    assert collect_garbage(location, delete=False) == expected | {"deleted": False}
    assert (corpus / "notes.txt").exists()
    assert collect_garbage(location, delete=True) == expected | {"deleted": True}
    assert tree(corpus) == before
    assert sorted(p.name for p in corpus.parent.iterdir()) == ["c", "latest.json", "patches"]
    with pytest.raises(UserError, match="no corpus, and no folder of corpora"):
        collect_garbage(str(corpus / "noisy"), delete=True)


def test_an_alias_means_the_corpus(corpus: Path, made: Made, parameters: Make) -> None:
    location = str(corpus.parent / "latest")
    write_alias(str(corpus), "latest", Corpus.open(str(corpus)).digest)
    assert Corpus.open(location).digest == Corpus.open(str(corpus)).digest
    assert verified(location)["verified"]
    assert recorded_parameters(location).output == str(corpus)
    made(parameters(corpus.parent / "d", alias="latest"))
    assert resolve_alias(location) == str(corpus.parent / "d")
    with pytest.raises(UserError, match=r"latest: is an alias of .*/d; choose another output"):
        made(parameters(location))
    with pytest.raises(UserError, match=r"alias 'c': .*a corpus has that name"):
        made(parameters(corpus.parent / "d", alias="c"))


@pytest.mark.parametrize("corpus_name", ["../c", "/etc", "..", ".", "", "a/b", 7, None, ["c"]])
def test_an_alias_leads_to_its_neighbours_only(tmp_path: Path, corpus_name: Any) -> None:
    write_json(str(tmp_path / "latest.json"), {"kind": "alias", "corpus": corpus_name, "digest": "0"})
    if corpus_name is None:
        assert resolve_alias(str(tmp_path / "latest")) == str(tmp_path / "latest")
        return
    with pytest.raises(IntegrityError, match=r"latest\.json: key 'corpus' is"):
        resolve_alias(str(tmp_path / "latest"))


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "-x"])
def test_names_of_aliases_are_names(parameters: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="alias"):
        parameters(tmp_path / "c", alias=name)


def opened(path: Path) -> np.ndarray:
    """An array by tensorstore, a library in C++ that shares no code with zarr-python."""
    store = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{path}/"}).result()
    return np.asarray(store.read().result())


def test_another_library_reads_the_same_pixels(corpus: Path) -> None:
    published = Corpus.open(str(corpus))
    clean, noisy = opened(corpus / "clean"), opened(corpus / "noisy")
    assert (clean.shape, noisy.shape) == ((36, 3, 32, 32), (2, 36, 3, 32, 32))
    for pair in range(72):
        expected = published.read(pair)
        np.testing.assert_array_equal(clean[pair % 36], expected[0])
        np.testing.assert_array_equal(noisy[divmod(pair, 36)], expected[1])


def test_sixteen_bits_in_another_library(
    parameters: Make, made: Made, pair: Callable, save: Callable, tmp_path: Path
) -> None:
    for k in range(2):
        save(tmp_path / "deep" / f"{k}.tif", pair(k, 64, 64, 3, "uint16")[1])
    made(parameters(tmp_path / "c", clean=str(tmp_path / "deep")))
    noisy = opened(tmp_path / "c" / "noisy")
    assert noisy.dtype == np.uint16
    published = Corpus.open(str(tmp_path / "c"))
    for k in range(len(published)):
        np.testing.assert_array_equal(noisy[0, k], published.read(k)[1])


def test_other_libraries_open_patch_stores(patches: str) -> None:
    assert opened(Path(patches) / "clean").shape[0] == 64  # slots, by tensorstore
    group, store = zarr.open_consolidated(patches, mode="r"), PatchStore.open(patches)
    for k, slot in enumerate(store.table.column("slot").to_pylist()):
        for array, wanted in zip(("clean", "noisy"), store.read(k), strict=True):
            np.testing.assert_array_equal(group[array][slot], wanted)


def test_consolidated_metadata(corpus: Path) -> None:
    group = zarr.open_consolidated(str(corpus), mode="r")
    assert sorted(group.array_keys()) == ["clean", "noisy"]
    consolidated = json.loads((corpus / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    for array in ("clean", "noisy"):
        np.testing.assert_array_equal(group[array][:], opened(corpus / array))
        assert consolidated[array] == json.loads((corpus / array / "zarr.json").read_text())
