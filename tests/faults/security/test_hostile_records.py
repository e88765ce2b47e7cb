"""Records from a stranger: what they name outside of their own folder is neither read, nor written, nor deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import s3fs
import torch
from torch import nn

from pngmodel.bundle import bundle_digest, read_bundle, write_bundle
from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.exports.export import ExportParameters, export_corpus
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.inspection import verify
from tasks.corpus.maintenance import collect_garbage, recorded_parameters
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.corpus.torch_dataset import CorpusDataset
from tasks.datasets.catalogue import read_one
from tasks.models.generators import bundle_folder
from tasks.models.prompt_bank import BankParameters, build_bank
from tasks.models.registry import add_version, check_files, fetch_version
from tasks.stores.commits import ObjectFact, decode_part, encode_part
from tasks.stores.corpus_store import Corpus
from tasks.stores.model_registry import Registered
from tasks.stores.patch_store import PatchStore
from tests.servers import s3_on_loopback

OUTSIDE = [
    "../secret",
    "/etc/hostname",
    "a/../../secret",
    "file:///etc/hostname",
    "s3://bucket/x",
    "..\\secret",
    "a//b",
]
Edit = Callable[..., None]


def test_a_patch_store_names_its_own_parts_only(patches: str, tmp_path: Path, edit: Edit) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((Path(patches) / "parts" / "00000.parquet").read_bytes())  # with the digest that is recorded
    for name in OUTSIDE:
        edit(Path(patches) / "store.json", lambda record, name=name: record["parts"][0].update(part=name))
        with pytest.raises(IntegrityError, match=r"store\.json: key 'parts\.0\.part': .*not a path inside the store"):
            PatchStore.open(patches)


def test_a_patch_store_has_each_part_at_its_place(patches: str, edit: Edit) -> None:
    edit(Path(patches) / "store.json", lambda record: record["parts"][0].update(part="parts/00001.parquet"))
    with pytest.raises(IntegrityError, match="does not list every object"):
        PatchStore.open(patches)


def test_other_records_name_files_of_their_own_only(patches: str, corpus: Path, tmp_path: Path, edit: Edit) -> None:
    build_bank(BankParameters(references=patches, output=str(tmp_path / "bank"), model="heteroscedastic", shard=10))
    export_corpus(ExportParameters(corpus=str(corpus), output=str(tmp_path / "export"), format="folders"))
    edits: dict[Path, Callable[[dict[str, Any], str], Any]] = {
        Path(patches) / "store.json": lambda record, name: record["arrays"].update({name: "0" * 64}),
        corpus / "corpus.json": lambda record, name: record["files"].update({name: "0" * 64}),
        tmp_path / "bank" / "bank.json": lambda record, name: record["parts"][0].update(part=name),
        tmp_path / "export" / "export.json": lambda record, name: record["parts"][0].update(part=name),
    }
    for record, change in edits.items():
        whole = record.read_bytes()
        for name in OUTSIDE:
            record.write_bytes(whole)
            edit(record, lambda content, change=change, name=name: change(content, name))
            with pytest.raises(IntegrityError, match="not a path inside the store"):
                verify(str(record.parent))


def test_a_part_names_files_of_its_own_store_only(corpus: Path, tmp_path: Path) -> None:
    parameters = ExportParameters(corpus=str(corpus), output=str(tmp_path / "export"), format="folders")
    export_corpus(parameters)
    part = tmp_path / "export" / ".export" / "parts" / "00000.parquet"
    table, facts = decode_part(part.read_bytes(), str(part))
    outside = ObjectFact(sha256="0" * 64, bytes=1)
    part.write_bytes(encode_part(table, replace(facts, objects=facts.objects | {"../../secret": outside})))
    record = tmp_path / "export" / "export.json"
    content = json.loads(record.read_text())
    content["parts"][0]["sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
    record.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=r"00000\.parquet: is damaged \((?s:.*)not a path inside the store"):
        verify(str(tmp_path / "export"))


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with one version of one model, ``m``."""
    write_bundle(nn.Linear(2, 2), tmp_path / "bundle", kind="pngnoise-denoiser", model={}, training={}, card="# card\n")
    add_version(str(tmp_path / "bundle"), str(tmp_path / "registry" / "m"))
    return tmp_path / "registry"


@pytest.mark.parametrize("name", [*OUTSIDE, "ABSOLUTE"])
def test_a_registry_cannot_have_files_written_elsewhere(registry: Path, tmp_path: Path, edit: Edit, name: str) -> None:
    evil = registry / "m" / "evil"
    evil.write_bytes(b"a line for somebody's shell")
    target = tmp_path / "home" / ".profile"
    target.parent.mkdir()
    named = str(target) if name == "ABSOLUTE" else name
    edit(
        registry / "m" / "versions" / "000001.json",
        lambda record: record["files"].update({named: hashlib.sha256(evil.read_bytes()).hexdigest()}),
    )
    with pytest.raises(IntegrityError, match=r"000001\.json: key 'files.*not a path inside the store"):
        fetch_version(f"{registry}/m@1", str(tmp_path / "home" / "fetched"))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("digest", ["../../../elsewhere", "/elsewhere", "..", "ABCDEF", ""])
def test_a_version_is_a_digest_and_no_path(registry: Path, edit: Edit, digest: str) -> None:
    edit(registry / "m" / "versions" / "000001.json", lambda record: record.update(digest=digest))
    with pytest.raises(IntegrityError, match=r"key 'digest': .*is not a sha256"):
        bundle_folder(f"{registry}/m@1")


def test_a_move_of_the_champion_names_digests(registry: Path) -> None:
    registered = Registered(str(registry), "m")
    check_files(registered, registered.version(1))
    (registry / "m" / "champion").mkdir()
    move = {"name": "m", "move": 1, "action": "promote", "version": 1, "digest": "0" * 64, "previous": None}
    move |= {"record": "../../../secret", "rules": None, "findings": [], "override": None, "reason": "", "moved": ""}
    (registry / "m" / "champion" / "000001.json").write_text(json.dumps(move))
    with pytest.raises(IntegrityError, match=r"key 'record': .*is not a sha256"):
        registered.champion()


def test_a_bundle_on_object_storage_cannot_be_unpacked_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "fake")
    with s3_on_loopback() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3fs.S3FileSystem.clear_instance_cache()
        storage = s3fs.S3FileSystem()
        storage.mkdir("stranger")
        storage.pipe_file("stranger/bundle/digest.json", b"{}")
        escape = f"../{'../' * 12}{tmp_path}/written"
        storage.call_s3("put_object", Bucket="stranger", Key=f"bundle/{escape}", Body=b"evil")
        assert len(storage.find("stranger/bundle")) == 2
        with pytest.raises(IntegrityError, match="not a path inside the store"):
            bundle_folder("s3://stranger/bundle")
        assert not (tmp_path / "written").exists()
    s3fs.S3FileSystem.clear_instance_cache()


def test_sources_say_neither_where_to_write_nor_who_computes(corpus: Path, tmp_path: Path) -> None:
    elsewhere, locations = tmp_path / "elsewhere", json.loads((corpus / "sources.json").read_text())
    slurm = {"kind": "slurm", "workers": 1, "options": {"job_script_prologue": [f"touch {elsewhere}"]}}
    said = {"output": str(elsewhere), "parts": "1/2", "alias": "latest", "check": "sizes", "cluster": slurm}
    for key, value in (said | {"override_gate": "because"}).items():
        (corpus / "sources.json").write_text(json.dumps(locations | {key: value}))
        for read in (recorded_parameters, lambda url: CorpusDataset(url)._planned(Corpus.open(url))):
            with pytest.raises(IntegrityError, match=rf"sources\.json: key '{key}' is not part of this record"):
                read(str(corpus))
    assert not elsewhere.exists()


def test_no_web_address_is_asked_because_a_record_names_it(corpus: Path) -> None:
    locations = json.loads((corpus / "sources.json").read_text())
    for name in ("model", "references", "clean"):
        for address in ("http://127.0.0.1:9/metadata", "zip://a.png::HTTPS://127.0.0.1:9/x.zip"):
            (corpus / "sources.json").write_text(json.dumps(locations | {name: address}))
            with pytest.raises(UserError, match=rf"its {name} are at .*; if you trust it, pass it with --{name}"):
                recorded_parameters(str(corpus))
            assert getattr(recorded_parameters(str(corpus), **{name: "shipped"}), name) == "shipped"


def test_places_of_a_recipe_are_read_only_to_be_compared(
    parameters: Callable[..., CorpusParameters], made: Any, tmp_path: Path, edit: Edit, pair: Any, save: Any
) -> None:
    """A recipe names where its sources lay. Others that lie there now are refused, and nothing of them is written."""
    made(parameters(tmp_path / "recipe", mode="recipe"))
    for seed in range(4):
        save(tmp_path / "private" / f"{seed}.png", pair(40 + seed)[1])
    edit(tmp_path / "recipe" / "sources.json", lambda locations: locations.update(clean=str(tmp_path / "private")))
    with pytest.raises(UserError, match="differ from the recorded ones"):
        CorpusDataset(str(tmp_path / "recipe"))


@pytest.mark.parametrize(
    "location", ["reference::/etc/x", "reference://x", "simplecache::s3://a/b", "github://a:b@c/d"]
)
def test_a_catalogue_chooses_no_machinery(location: str) -> None:
    row = {"pair": "a", "clean": location, "clean_part": "", "clean_sha256": "0" * 64}
    with pytest.raises(UserError, match=r"unsupported scheme|contains a user"):
        read_one(row, "clean")


def test_links_in_a_corpus_lead_nowhere(corpus: Path, tmp_path: Path, tree: Any) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "diary.txt").write_text("mine")
    (corpus / "more").symlink_to(home, target_is_directory=True)
    (corpus / "diary.txt").symlink_to(home / "diary.txt")
    found = collect_garbage(str(corpus), delete=True)
    assert sorted(Path(name).name for name in found["orphans"]) == ["diary.txt", "more"]
    assert tree(home) == {"diary.txt": b"mine"}
    assert not (corpus / "more").is_symlink()


def test_nothing_is_written_through_a_link(
    parameters: Callable[..., CorpusParameters], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus that is continued, whose folders are links: the disk behind them is somebody else's."""
    for folder in ("noisy/c", "parts"):
        (tmp_path / "elsewhere" / folder).mkdir(parents=True)
        (corpus / folder).rename(tmp_path / "kept")
        (corpus / folder).symlink_to(tmp_path / "elsewhere" / folder, target_is_directory=True)
        with pytest.raises(UserError, match="is a symbolic link out of its folder"):
            make_corpus_shards(plan_corpus(parameters(corpus)))
        assert [p for p in (tmp_path / "elsewhere").rglob("*") if p.is_file()] == []
        (corpus / folder).unlink()
        (tmp_path / "kept").rename(corpus / folder)
    (corpus / "parts").rename(tmp_path / "elsewhere" / "own")
    (corpus / "parts").symlink_to(tmp_path / "elsewhere" / "own", target_is_directory=True)
    monkeypatch.setenv("PNGNOISE_FOLLOW_LINKS", "1")  # one's own, on another disk
    assert make_corpus_shards(plan_corpus(parameters(corpus)))["kept"] == 5
    assert len(list((tmp_path / "elsewhere" / "own").iterdir())) == 5


def test_weights_are_never_unpickled(hostile: Any, tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    nn.init.zeros_(module.weight)
    write_bundle(module, tmp_path / "bundle", kind="pngnoise-denoiser", model={}, training={}, card="")
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "benign")
    for content in (hostile.pickled, (tmp_path / "benign").read_bytes()):
        _replace_weights(tmp_path / "bundle", content)
        with pytest.raises((IntegrityError, UserError)):
            read_bundle(tmp_path / "bundle", "pngnoise-denoiser", lambda model: nn.Linear(2, 2))


def _replace_weights(bundle: Path, content: bytes) -> None:
    """Other weights, with digests that fit them: a bundle's digest says what it is, not that it is good."""
    (bundle / "model.safetensors").write_bytes(content)
    record = json.loads((bundle / "digest.json").read_text())
    record["files"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
    record["digest"] = bundle_digest(record["files"])
    (bundle / "digest.json").write_text(json.dumps(record))
