"""The registry on a local disk: versions, two writers, the gate, moves of the champion, damage."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import nn

from pngmodel.bundle import save_bundle, verify_bundle, write_bundle
from pngmodel.errors import IntegrityError, UserError
from pngmodel.metrics.protocols import METRICS, SAMPLE_METRICS
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS
from tasks.corpus.inspection import inspect, verify
from tasks.models.generators import bundle_folder, load_generator, model_digest
from tasks.models.promotion import (
    PromoteParameters,
    PromotionRules,
    evaluation_of,
    judge,
    load_rules,
    promote,
    roll_back,
)
from tasks.models.registry import add_version, fetch_version, list_models, show_model
from tasks.stores.model_registry import Registered, VersionName, parse_version

GATE = {
    "protocol": "noise-A",
    "limits": {"model.kld": {"max": 0.05}, "model.std_ratio": {"min": 0.9, "max": 1.1}},
    "no_worse": {"model.kld": {"better": "lower", "by": 0.01}},
}
ADDER = """
import sys
from pathlib import Path
from tasks.models.registry import add_version
go, bundles, place = sys.argv[1], sys.argv[2:-1], sys.argv[-1]
print("ready", flush=True)
while not Path(go).exists():
    pass
for bundle in bundles:
    add_version(bundle, place)
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """A small bundle whose weights are the number."""

    def make(number: float, kind: str = "pngnoise-denoiser", card: str = "# card\n") -> Path:
        module = nn.Linear(2, 2)
        nn.init.constant_(module.weight, number)
        nn.init.zeros_(module.bias)
        folder = tmp_path / "bundles" / f"{kind}-{number}-{len(card)}"
        write_bundle(module, folder, kind=kind, model={}, training={}, card=card)
        return folder

    return make


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., str]:
    """A file of rules; keywords change them."""

    def write(**changes: Any) -> str:
        path = tmp_path / f"gate-{len(list(tmp_path.glob('gate-*')))}.yaml"
        path.write_text(yaml.safe_dump(GATE | changes))
        return str(path)

    return write


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., str]:
    """The record of an evaluation, as `pngnoise evaluate noise --output` writes it."""

    def write(digest: str, kld: Any = 0.02, std_ratio: float = 1.0, **changes: Any) -> str:
        metrics = {"model": {"kld": kld, "std_ratio": std_ratio}, "awgn": {"kld": 0.4}}
        record = {"protocol": "noise-A", "references": "pairs", "model": {"digest": digest}, "metrics": metrics}
        path = tmp_path / f"record-{len(list(tmp_path.glob('record-*')))}.json"
        path.write_text(json.dumps(record | changes))
        return str(path)

    return write


def moved(version: str, record: str, rules: str, **more: Any) -> dict[str, Any]:
    return promote(PromoteParameters(version=version, record=record, rules=rules, **more))


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("models/small@champion", VersionName("models", "small", "champion")),
        ("small@3", VersionName(".", "small", "3")),
        ("/small@3", VersionName("/", "small", "3")),
        ("s3://bucket/a/b/small@12", VersionName("s3://bucket/a/b", "small", "12")),
        ("models/small@3/", None),
        ("models/small@0", None),
        ("models/small@latest", None),
        ("models/me@home/bundle", None),
        ("shipped", None),
    ],
)
def test_names_of_versions(location: str, expected: VersionName | None) -> None:
    assert parse_version(location) == expected


def test_versions_are_counted_and_known_by_content(tmp_path: Path, bundle: Callable, tree: Callable) -> None:
    location = str(tmp_path / "models" / "small")
    first = add_version(str(bundle(1)), location, "the first one")
    assert (first["name"], first["added"], first["note"]) == ("small@1", True, "the first one")
    assert add_version(str(bundle(2)), location)["name"] == "small@2"
    before = tree(tmp_path / "models")
    again = add_version(str(bundle(1)), location)
    assert (again["name"], again["added"], again["digest"]) == ("small@1", False, verify_bundle(bundle(1)))
    assert add_version(str(bundle(1, card="# another card\n")), location)["name"] == "small@1"
    assert tree(tmp_path / "models") == before  # the card of the first writer stays
    for number in (1, 2):
        assert bundle_folder(f"{location}@{number}").name == verify_bundle(bundle(number))
        assert verify(f"{location}@{number}")["verified"] is True
    assert [v["name"] for v in show_model(location)["versions"]] == ["small@1", "small@2"]
    assert add_version(f"{location}@2", str(tmp_path / "other" / "copy"))["digest"] == verify_bundle(bundle(2))
    assert add_version(str(bundle(3, "pngnoise-baseline")), str(tmp_path / "models" / "naflow"))["name"] == "naflow@1"
    listed = {m["name"]: m for m in list_models(str(tmp_path / "models"))}
    assert set(listed) == {"naflow", "small"}
    assert (listed["small"]["versions"], listed["small"]["champion"]) == (2, None)


def test_what_cannot_be_added(tmp_path: Path, bundle: Callable) -> None:
    location = str(tmp_path / "models" / "small")
    add_version(str(bundle(1)), location)
    with pytest.raises(UserError, match=r"contains bundles of kind 'pngnoise-denoiser', .* 'pngnoise-baseline'"):
        add_version(str(bundle(1, "pngnoise-baseline")), location)
    with pytest.raises(UserError, match=r"'format' in config.json is 'something'; a registry accepts pngnoise-model"):
        add_version(str(bundle(1, "something")), location)
    with pytest.raises(UserError, match=r"digest\.json: missing"):
        add_version(str(tmp_path), location)
    with pytest.raises(UserError, match=r"the name 'sm all' is invalid"):
        add_version(str(bundle(1)), str(tmp_path / "sm all"))
    with pytest.raises(UserError, match=r"expected REGISTRY/NAME; remove '@3'"):
        add_version(str(bundle(1)), f"{location}@3")
    (bundle(4) / "model.safetensors").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        add_version(str(tmp_path / "bundles" / "pngnoise-denoiser-4-7"), location)
    assert Registered(str(tmp_path / "models"), "small").versions() == [1]


def start(*arguments: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", ADDER, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_processes_that_add_at_once(tmp_path: Path, bundle: Callable) -> None:
    """Each adds the shared bundles and some of its own; no version is lost, double or without its files."""
    location, go = str(tmp_path / "models" / "small"), tmp_path / "go"
    shared = [bundle(n) for n in range(4)]
    own = [[bundle(100 * k + n) for n in range(1, 5)] for k in (1, 2)]
    processes = [start(go, *[b for pair in zip(shared, mine, strict=True) for b in pair], location) for mine in own]
    go.touch()
    assert [p.wait(120) for p in processes] == [0, 0]
    registered = Registered(str(tmp_path / "models"), "small")
    assert registered.versions() == list(range(1, 13))
    digests = [registered.version(n).digest for n in registered.versions()]
    assert sorted(digests) == sorted(map(verify_bundle, [*shared, *own[0], *own[1]]))
    for number in registered.versions():
        assert verify_bundle(bundle_folder(f"{location}@{number}")) == registered.version(number).digest


def test_a_bundle_without_its_record_is_no_version(tmp_path: Path, bundle: Callable) -> None:
    """What a killed writer leaves: files, and no versions/000002.json. Adding again makes the version."""
    location = str(tmp_path / "models" / "small")
    add_version(str(bundle(1)), location)
    add_version(str(bundle(2)), location)
    record = tmp_path / "models" / "small" / "versions" / "000002.json"
    record.unlink()
    lost = tmp_path / "models" / "small" / "bundles" / verify_bundle(bundle(2))
    (lost / "model.safetensors").unlink()
    assert len(show_model(location)["versions"]) == 1
    with pytest.raises(UserError, match=r"small: has no version 2; it has versions 1"):
        bundle_folder(f"{location}@2")
    assert add_version(str(bundle(2)), location)["name"] == "small@2"
    assert verify_bundle(bundle_folder(f"{location}@2")) == verify_bundle(bundle(2))


def test_a_writer_killed_between_files(tmp_path: Path, bundle: Callable) -> None:
    """Killed just before the record is published."""
    location = str(tmp_path / "models" / "small")
    code = (
        "import os, signal, sys\nfrom tasks.stores.model_registry import Registered\n"
        "from tasks.models.registry import add_version\n"
        "Registered.create_version = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\nadd_version(*sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle(1)), location], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "models" / "small").iterdir()] == ["bundles"]
    assert list_models(str(tmp_path / "models")) == []
    with pytest.raises(UserError, match="has no versions; add one with"):
        show_model(location)
    assert add_version(str(bundle(1)), location)["added"] is True


def test_damage_is_named_and_mended_by_adding_again(
    tmp_path: Path, bundle: Callable, gate: Callable, evaluated: Callable
) -> None:
    location = str(tmp_path / "models" / "small")
    digest = add_version(str(bundle(1)), location)["digest"]
    weights = tmp_path / "models" / "small" / "bundles" / digest / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"!")
    with pytest.raises(IntegrityError, match=r"small@1 is damaged: model\.safetensors differs"):
        fetch_version(f"{location}@1", str(tmp_path / "fetched"))
    with pytest.raises(IntegrityError, match=r"small@1 is damaged"):
        moved(f"{location}@1", evaluated(digest), gate())
    with pytest.raises(IntegrityError, match=r"model\.safetensors: the SHA-256 differs"):
        verify(f"{location}@1")
    assert not (tmp_path / "fetched").exists()
    add_version(str(bundle(1)), location)
    assert weights.read_bytes() == whole
    fetched = fetch_version(f"{location}@1", str(tmp_path / "fetched"))
    assert verify_bundle(fetched["folder"]) == digest
    assert fetch_version(f"{location}@1", str(tmp_path / "fetched")) == fetched
    add_version(str(bundle(2)), location)
    with pytest.raises(UserError, match="fetched: the folder is not empty"):
        fetch_version(f"{location}@2", str(tmp_path / "fetched"))
    # a folder whose files were exchanged for those of another bundle, which is whole in itself
    for path in bundle(2).iterdir():
        (weights.parent / path.name).write_bytes(path.read_bytes())
    with pytest.raises(IntegrityError, match="differs from the record of the version"):
        bundle_folder(f"{location}@1")
    record = tmp_path / "models" / "small" / "versions" / "000002.json"
    record.write_text(record.read_text().replace('"version": 2', '"version": 7'))
    with pytest.raises(IntegrityError, match=r"000002\.json: is the record of small@7"):
        bundle_folder(f"{location}@2")
    record.write_text("{}")
    with pytest.raises(IntegrityError, match=r"000002\.json: key 'name'"):
        bundle_folder(f"{location}@2")


def test_the_gate(tmp_path: Path, bundle: Callable, gate: Callable, evaluated: Callable) -> None:
    location = str(tmp_path / "models" / "small")
    digests = [add_version(str(bundle(n)), location)["digest"] for n in range(4)]
    registered = Registered(str(tmp_path / "models"), "small")
    with pytest.raises(UserError, match="has no champion; it has versions 1, 2, 3, 4"):
        bundle_folder(f"{location}@champion")

    # limits; a record about another version; a figure that is missing: nothing moves, records stay
    with pytest.raises(UserError, match=r"kld is 0\.06, must be at most 0\.05 \(.*yaml\).* stored as evaluation"):
        moved(f"{location}@1", evaluated(digests[0], 0.06), gate())
    with pytest.raises(UserError, match=r"model\.std_ratio is 0\.8, must be at least 0\.9"):
        moved(f"{location}@1", evaluated(digests[0], std_ratio=0.8), gate())
    with pytest.raises(UserError, match=r"protocol is noise-C, must be noise-A"):
        moved(f"{location}@1", evaluated(digests[0], protocol="noise-C"), gate())
    for value in ("0.01", None, True, float("nan")):
        with pytest.raises(UserError, match=r"model\.kld is missing"):
            moved(f"{location}@1", evaluated(digests[0], value), gate())
    assert len(registered.evaluations(1)) == 7
    with pytest.raises(UserError, match=rf"has no evaluation of digest {digests[0]}, which is .*small@1"):
        moved(f"{location}@1", evaluated(digests[1]), gate())
    assert len(registered.evaluations(1)) == 7
    assert registered.champion() is None
    assert not (tmp_path / "models" / "small" / "champion.json").exists()

    first = moved(f"{location}@1", evaluated(digests[0], 0.02), gate(), reason="first one")
    assert (first["version"], first["previous"], first["override"], first["reason"]) == (1, None, None, "first one")
    assert registered.evaluation(1, first["record"])["metrics"]["model"]["kld"] == 0.02
    assert bundle_folder(f"{location}@champion").name == digests[0]

    # compared with the champion: .031 is .011 worse, .03 is .01 worse
    with pytest.raises(
        UserError, match=r"version 1 stays champion: model\.kld is 0\.031, .* 0\.01 above the champion's 0\.02"
    ):
        moved(f"{location}@2", evaluated(digests[1], 0.031), gate())
    with pytest.raises(UserError, match=r"small@1, which has no stored evaluation with the same protocol and refer"):
        moved(f"{location}@2", evaluated(digests[1], 0.01, references="other pairs"), gate())
    assert registered.champion().version == 1  # type: ignore[union-attr]
    # the champion is evaluated on the other pairs, too
    moved(f"{location}@1", evaluated(digests[0], 0.04, references="other pairs"), gate(), reason="other pairs")
    assert moved(f"{location}@2", evaluated(digests[1], 0.045, references="other pairs"), gate())["previous"] == 1
    with pytest.raises(UserError, match="not promoted"):
        moved(f"{location}@3", evaluated(digests[2], 0.5), gate())
    forced = moved(f"{location}@3", evaluated(digests[2], 0.5), gate(), override="demo on Monday")
    assert (forced["override"], forced["reason"]) == ("demo on Monday", "overridden: demo on Monday")
    assert [f["passed"] for f in forced["findings"]].count(False) == 2
    shown = json.loads((tmp_path / "models" / "small" / "champion.json").read_text())
    assert (shown["version"], shown["previous"], shown["override"]) == (3, 2, "demo on Monday")
    assert shown["record"] in registered.evaluations(3)
    assert [m["version"] for m in show_model(location)["moves"]] == [1, 1, 2, 3]
    # an override that was not needed is not recorded as one
    assert moved(f"{location}@4", evaluated(digests[3]), gate(no_worse={}), override="why not")["override"] is None


def test_rolling_back(tmp_path: Path, bundle: Callable, gate: Callable, evaluated: Callable) -> None:
    location = str(tmp_path / "models" / "small")
    digests = [add_version(str(bundle(n)), location)["digest"] for n in range(4)]
    with pytest.raises(UserError, match="has no champion to roll back"):
        roll_back(location, "why")
    records = {}
    for n in (1, 2, 3):
        records[n] = moved(f"{location}@{n}", evaluated(digests[n - 1]), gate())["record"]
    with pytest.raises(UserError, match="a rollback requires a reason"):
        roll_back(location, " ")
    with pytest.raises(ValidationError, match="override"):
        moved(f"{location}@1", "record.json", "gate.yaml", override=" ")
    back = roll_back(location, "colour cast")
    assert (back["version"], back["previous"], back["record"]) == (2, 3, records[2])
    assert back["reason"] == "colour cast"
    assert bundle_folder(f"{location}@champion").name == digests[1]
    assert roll_back(location, "that, too")["version"] == 1
    with pytest.raises(UserError, match="there is no previous champion; previous and current champions: 1, 2, 3"):
        roll_back(location, "and again")
    assert roll_back(location, "it was good", to=3)["version"] == 3
    with pytest.raises(UserError, match="version 4 was never champion"):
        roll_back(location, "not judged", to=4)
    moves = show_model(location)["moves"]
    assert [(m["action"], m["version"]) for m in moves] == [
        ("promote", 1),
        ("promote", 2),
        ("promote", 3),
        ("rollback", 2),
        ("rollback", 1),
        ("rollback", 3),
    ]


def test_two_that_move_the_champion_at_once(
    tmp_path: Path, bundle: Callable, gate: Callable, evaluated: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one moves it between the judgement and the move."""
    location = str(tmp_path / "models" / "small")
    digests = [add_version(str(bundle(n)), location)["digest"] for n in range(2)]
    real = Registered.champion
    calls = []

    def champion(self: Registered) -> Any:
        found = real(self)
        calls.append(None)
        if len(calls) == 1:
            moved(f"{location}@2", evaluated(digests[1]), gate())
        return found

    monkeypatch.setattr(Registered, "champion", champion)
    with pytest.raises(UserError, match="another process moved the champion in the meantime; nothing was changed"):
        moved(f"{location}@1", evaluated(digests[0]), gate())
    assert [m["version"] for m in show_model(location)["moves"]] == [2]


def test_a_denoiser_among_several_of_a_record() -> None:
    denoisers = [{"digest": d, "metrics": {"sidd.psnr": psnr}} for d, psnr in (("c", 30.0), ("d", 37.2))]
    whole = {"protocol": "denoiser-sidd", "denoisers": denoisers, "tests": {"sidd": {"references": "pairs"}}}
    record = evaluation_of(whole, "d")
    assert record is not None
    assert record["references"] == {"sidd": "pairs"}
    assert evaluation_of(whole, "e") is None
    assert evaluation_of({"metrics": {}}, "d") is None
    rules = PromotionRules.model_validate(
        {"limits": {"sidd.psnr": {"min": 37}}, "no_worse": {"sidd.psnr": {"better": "higher", "by": 0.1}}}
    )
    for theirs, passed in ((37.25, True), (37.4, False)):
        findings = judge(record, rules, {"metrics": {"sidd.psnr": theirs}})
        assert [f["passed"] for f in findings] == [True, passed]
    assert [f["passed"] for f in judge(record, rules, None)] == [True, True]
    assert [f["passed"] for f in judge(record, rules, {"metrics": {}})] == [True, False]


def test_rules_are_validated(gate: Callable) -> None:
    with pytest.raises(UserError, match="unknown key 'limts'"):
        load_rules(gate(limts={}))
    with pytest.raises(UserError, match="set max, min or both"):
        load_rules(gate(limits={"model.kld": {}}))
    with pytest.raises(UserError, match="set limits, no_worse or both"):
        load_rules(gate(limits={}, no_worse={}))
    with pytest.raises(UserError, match=r"no_worse\.x\.better"):
        load_rules(gate(no_worse={"x": {"by": 1}}))


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[4] / "configs" / "promotion").iterdir()), ids=str)
def test_figures_of_the_gates_exist(path: Path) -> None:
    rules = load_rules(str(path))
    known = {f"model.{name}" for name in METRICS | SAMPLE_METRICS} | {"sidd.psnr", "sidd.ssim"}
    assert set(rules.limits) | set(rules.no_worse) <= known


def test_a_noise_model_of_the_registry_is_used_by_its_name(
    tmp_path: Path, gate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.evaluation.noise import EvaluateParameters, evaluate_noise

    torch.manual_seed(0)
    config = PRESETS["tiny"].model_copy(update={"channels": (4, 4, 8, 8), "width": 24, "depth": 1, "heads": 2})
    digest = save_bundle(NoiseModel(config), tmp_path / "bundle", training={}, card="# card")
    monkeypatch.chdir(tmp_path)
    add_version("bundle", "models/small")
    fields = {"model": "models/small@1", "limit": 1, "baselines": False, "output": "record.json"}
    record = evaluate_noise(EvaluateParameters(**fields)).record
    assert record["model"]["digest"] == digest
    rules = gate(limits={"model.lag1_error": {"max": 10}}, no_worse={})
    moved("models/small@1", "record.json", rules)
    assert model_digest("models/small@champion") == digest
    assert load_generator("models/small@champion", "cpu", digest).digest == digest  # type: ignore[attr-defined]
    assert inspect("models/small@champion")["digest"] == digest
