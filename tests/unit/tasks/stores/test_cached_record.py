"""Records that are made once."""

from __future__ import annotations

from pathlib import Path

from tasks.evaluation.noise import EvaluateParameters, evaluate_noise
from tasks.stores.io.cached_record import recorded


def test_made_once_for_a_key(tmp_path: Path) -> None:
    made = []

    def make() -> dict:
        made.append(1)
        return {"value": len(made)}

    location = str(tmp_path / "r.json")
    assert recorded(location, "a", make) == recorded(location, "a", make) == {"value": 1, "key": "a"}
    assert recorded(location, "b", make)["value"] == 2
    (tmp_path / "r.json").write_text("{")
    assert recorded(location, "b", make)["value"] == 3
    assert recorded(None, "b", make)["value"] == 4


def test_an_evaluation_is_read_again_unless_something_differs(patches: str, tmp_path: Path) -> None:
    def run(**changes) -> tuple[dict, list]:
        steps: list = []
        fields = {"model": "awgn", "references": patches, "limit": 2, "baselines": False}
        parameters = EvaluateParameters(**(fields | {"output": str(tmp_path / "e.json")} | changes))
        return evaluate_noise(parameters, lambda *n: steps.append(n)).record, steps

    first, worked = run()
    again, idle = run()
    assert (again, bool(worked), idle) == (first, True, [])
    assert run(seed=1)[1]
    assert run()[1]  # the place holds the other one now
    assert run(report=str(tmp_path / "page.html"))[1]  # pictures are made anew where there are none
