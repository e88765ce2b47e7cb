"""A dataset, a store, a model, a configuration of a stranger cannot run code: payloads in every format that carries
some, and no code of ours that could be asked to."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from pngmodel.errors import IntegrityError, UserError
from tasks.datasets.formats.pixels import read_pixels
from tasks.datasets.ingest import ingest
from tasks.reports.pages import TEMPLATES
from tasks.runtime.configuration import load_yaml
from tasks.stores.io.tables import decode_table
from tasks.stores.prompt_bank import decode_entry

REPOSITORY = Path(__file__).parents[3]
REFUSED = (UserError, IntegrityError)


def zarr_v2(folder: Path, payload: bytes, **changes: Any) -> str:
    """A Zarr version 2 array whose only chunk is a payload."""
    folder.mkdir()
    document = {
        "zarr_format": 2,
        "shape": [1, 8, 8],
        "chunks": [1, 8, 8],
        "dtype": "|O",
        "fill_value": "",
        "order": "C",
    }
    document |= {"compressor": None, "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]}
    (folder / ".zarray").write_text(json.dumps(document | changes))
    (folder / "0.0.0").write_bytes(payload)
    return str(folder)


def zarr_v3(folder: Path, payload: bytes, codecs: list[dict[str, Any]]) -> str:
    folder.mkdir()
    document = {"zarr_format": 3, "node_type": "array", "shape": [1, 8, 8], "data_type": "uint8", "fill_value": 0}
    document |= {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8]}}, "codecs": codecs}
    document |= {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}}
    (folder / "zarr.json").write_text(json.dumps(document))
    (folder / "c" / "0" / "0").mkdir(parents=True)
    (folder / "c" / "0" / "0" / "0").write_bytes(payload)
    return str(folder)


def test_arrays_of_pickled_objects_are_not_read(hostile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numcodecs.pickles

    # What older releases of that library did by default: this product must not depend on the newer default.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    numbers = {"id": "pickle"}
    locations = [
        zarr_v2(tmp_path / "filter", hostile.pickled),
        zarr_v2(tmp_path / "compressor", hostile.pickled, filters=[{"id": "vlen-utf8"}], compressor=numbers),
        zarr_v2(tmp_path / "numbers", hostile.pickled, dtype="|u1", filters=None, compressor=numbers, fill_value=0),
        zarr_v3(tmp_path / "v3", hostile.pickled, [{"name": "numcodecs.pickle", "configuration": {}}]),
        zarr_v3(tmp_path / "own", hostile.pickled, [{"name": "os.system", "configuration": {"command": "touch x"}}]),
    ]
    for location in locations:
        with pytest.raises(UserError, match=r"no such file|no Zarr array|is damaged"):
            next(read_pixels(location, ["row=0"]))
        with pytest.raises(REFUSED):
            ingest(location, "clean", str(tmp_path / "catalogue"))


def test_pickles_under_the_names_of_images_are_rejects(hostile: Any, tmp_path: Path, pair: Any, save: Any) -> None:
    root = tmp_path / "set"
    for side, image in zip(("noisy", "clean"), pair(0), strict=True):
        save(root / side / "good.png", image)
        for name in ("a.png", "b.jpg", "c.tif"):
            (root / side / name).write_bytes(hostile.pickled)
    arrays = np.empty(1, object)
    arrays[0] = "x"
    np.save(root / "noisy" / "objects.npy", arrays, allow_pickle=True)
    found = ingest(str(root), "folders", str(tmp_path / "catalogue"))
    assert found["pairs"] == 1
    assert {Path(r["id"]).stem for r in found["rejected"]} >= {"a", "b", "c"}
    for name in ("m.mat", "h.mat"):
        (root / name).write_bytes(hostile.pickled)
        with pytest.raises(UserError, match=r"no MATLAB file|truncated"):
            next(read_pixels(str(root / name), ["x"]))


def test_hdf5_that_points_to_other_files_is_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["image"] = np.arange(64, dtype="u1").reshape(8, 8)
    (tmp_path / "raw.bin").write_bytes(bytes(range(64)))
    location = tmp_path / "set.mat"
    with h5py.File(location, "w") as file:
        file["linked"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "image")
        file["soft"] = h5py.SoftLink("/linked")
        file.create_dataset("outside", (8, 8), "u1", external=[(str(tmp_path / "raw.bin"), 0, 64)])
        layout = h5py.VirtualLayout((8, 8), "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "image", (8, 8))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("objects", (8,), h5py.string_dtype())
    for name in ("linked", "soft", "outside", "virtual", "objects"):
        with pytest.raises(UserError, match=f"holds no variable '{name}'"):
            next(read_pixels(str(location), [name]))


class _Configuration(BaseModel):
    name: str


def test_configurations_make_no_objects(hostile: Any, tmp_path: Path, pair: Any, save: Any) -> None:
    location = tmp_path / "x.yaml"
    tags = (
        hostile.yaml,
        f"name: {hostile.yaml}",
        f"name: !!python/object/new:os.system ['touch {hostile.canary}']\n",
        "name: !!python/name:os.system\n",
        "name: !!python/module:os\n",
    )
    for text in tags:
        location.write_text(text)
        with pytest.raises(UserError, match="is not valid YAML: could not determine a constructor"):
            load_yaml(location, _Configuration)
    for side, image in zip(("noisy", "clean"), pair(0), strict=True):
        save(tmp_path / "set" / side / "a.png", image)
    (tmp_path / "set" / "dataset.yaml").write_text(hostile.yaml)
    with pytest.raises(UserError, match="is not valid YAML"):
        ingest(str(tmp_path / "set"), "folders", str(tmp_path / "catalogue"))


def test_tables_and_tensors_hold_values_and_no_objects(hostile: Any) -> None:
    class Pickled(pa.ExtensionType):  # as pyarrow's own did, whose loader ran what was in the metadata
        def __init__(self) -> None:
            super().__init__(pa.binary(), "arrow.py_extension_type")

        def __arrow_ext_serialize__(self) -> bytes:
            return bytes(hostile.pickled)

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Pickled:
            return cls()

    array = pa.ExtensionArray.from_storage(Pickled(), pa.array([hostile.pickled]))
    schema = pa.schema([pa.field("x", Pickled())], metadata={b"pandas": hostile.pickled, b"pngnoise.shard": b"{}"})
    buffer = io.BytesIO()
    pq.write_table(pa.table([array], schema=schema), buffer)
    table = decode_table(buffer.getvalue(), "x.parquet")
    assert table.column("x").to_pylist() == [hostile.pickled]
    for content in (hostile.pickled, b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"{}" + hostile.pickled):
        with pytest.raises(ValueError, match="not a safetensors file"):
            decode_entry(content)


def test_a_name_is_never_a_template(hostile: Any, tmp_path: Path, pair: Any, save: Any) -> None:
    """What is drawn into a page stays text, whatever it says; templates come from this package alone."""
    name = "{{7*7}}{% include '/etc/hostname' %}".replace("/", "-")
    for side, image in zip(("noisy", "clean"), pair(0), strict=True):
        save(tmp_path / "set" / side / f"{name}.png", image)
    (tmp_path / "set" / "noisy" / "torn{{7*7}}.png").write_bytes(b"x")
    ingest(str(tmp_path / "set"), "folders", str(tmp_path / "catalogue"))
    page = (tmp_path / "catalogue" / "report.html").read_text()
    assert "{{7*7}}" in page
    shown = TEMPLATES.from_string("{{ name }}").render(name=hostile.template)
    assert "cycler" in shown
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:  # rules in an archive are not followed either
        archive.writestr("dataset.yaml", hostile.yaml)
    with pytest.raises(UserError, match="rules inside an archive are not used"):
        ingest(str(tmp_path / "set.zip"), "folders", str(tmp_path / "other"))


def test_a_corpus_of_a_stranger_is_looked_at_without_running_it(hostile: Any, corpus: Path) -> None:
    """Every file of a corpus is a pickle in turn; the command says that it is damaged, and no more."""
    files = [p for p in sorted(corpus.rglob("*")) if p.is_file() and p.name not in ("README.md", "report.html")]
    from tasks.corpus.inspection import inspect, verify
    from tasks.corpus.torch_dataset import CorpusDataset

    for path in files:
        whole = path.read_bytes()
        path.write_bytes(hostile.pickled)
        for look in (verify, inspect, lambda url: CorpusDataset(url)[0]):
            try:
                look(str(corpus))
            except REFUSED:
                continue
        path.write_bytes(whole)
    assert len(files) > 10


FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}
IMPORTERS = {("tasks/runtime/clusters.py", 2), ("flows/docs/reference.py", 1)}
"""Modules that are imported by a name: of a list in the code, or found below this package."""


def sources() -> Iterator[tuple[str, ast.AST]]:
    for package in ("pngmodel", "tasks", "flows", "infra"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text(), str(path))


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name or attribute, else what can be told of it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def keyword(call: ast.Call, name: str) -> Any:
    """The constant given for a keyword, None where there is none."""
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def objection(call: ast.Call) -> str | None:
    """What is wrong with a call, in words."""
    name = dotted(call.func)
    last = name.rpartition(".")[2]
    if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path"):
        return f"{name} runs text as code"
    if keyword(call, "shell") not in (None, "False"):
        return "a shell takes names apart"
    if name == "torch.load" and keyword(call, "weights_only") != "True":
        return "torch.load without weights_only=True unpickles"
    if name in ("np.load", "numpy.load") and keyword(call, "allow_pickle") != "False":
        return "np.load without allow_pickle=False"
    if name in ("torch.save", "np.save") or keyword(call, "allow_pickle") == "True":
        return f"{name} pickles"
    if name in ("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.dump", "yaml.unsafe_load_all"):
        return f"{name} is not the safe one"
    if name == "yaml.load" and keyword(call, "Loader") != "_SafeLoader":
        return "yaml.load with a loader that is not ours"
    if last in ("from_string", "Template") and "jinja2" in name:
        return "a template that is data"
    if last == "extractall" or name == "shutil.unpack_archive":
        return f"{last} makes paths of an archive's names"
    return None


def test_nothing_of_ours_could_run_what_it_reads() -> None:
    objections, importers = [], dict.fromkeys((name for name, _ in IMPORTERS), 0)
    for name, tree in sources():
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found = [f"imports {m}" for m in modules if m.partition(".")[0] in FORBIDDEN_MODULES]
            if isinstance(node, ast.Call):
                found += [words] if (words := objection(node)) else []
            if isinstance(node, ast.Attribute) and dotted(node) == "importlib.import_module":
                importers[name] = importers.get(name, 0) + 1
            objections += [f"{name}:{getattr(node, 'lineno', 0)}: {words}" for words in found]
    assert objections == []
    assert set(importers.items()) == IMPORTERS


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x)",
        "eval(x)",
        "subprocess.run(x, shell=True)",
        "yaml.load(x, Loader=yaml.Loader)",
        "archive.extractall(x)",
    ],
)
def test_the_walk_sees_what_it_is_to_see(text: str) -> None:
    (statement,) = ast.parse(text).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert objection(statement.value)


def test_the_loader_of_configurations_is_a_safe_one() -> None:
    code = "import yaml, tasks.runtime.configuration as c; assert issubclass(c._SafeLoader, yaml.SafeLoader)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
