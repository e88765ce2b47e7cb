"""A campaign of kills against the main job. Victims, order and moments follow from the seed.

Each stage is started, something that it needs is killed at a moment drawn from its length, what died is started again,
and so is the same command until it ends. Whenever the commit record is there, everything that it stands for has to
equal what an undisturbed run made.
"""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.processes import Launched, Launcher, Worker
from tests.faults.stages import Stage, unreadable_checkpoints
from tests.servers import Dask, Server, kill, wait_until

VICTIMS = {
    "inline": ("flow", "flow", "flow", "S3 server", "S3 server", "Prefect server"),
    "dask": ("flow", "Dask worker", "Dask worker", "S3 server"),
    "parts": ("flow", "flow", "S3 server"),
    "deployment": ("Prefect worker", "Prefect worker", "flow", "S3 server"),
}
"""What may die under a run that was started in this way."""
_LONGEST = 300.0
_DISTURBED = 5  # attempts at an output that are disturbed; the others are left in peace
_GIVE_UP = 10
_WORDS = 2  # exit code of an error in words
_TOLD = ("UserError", "TransientError", "IntegrityError")  # errors in words
_OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
Ended = Callable[[], bool]


@dataclass
class Undisturbed:
    """What each stage makes in peace, and how many seconds it takes."""

    lengths: dict[str, float] = field(default_factory=dict)
    trees: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass
class Campaign:
    """``table`` counts kills by victim and stage; the rest is what went wrong, which has to stay empty."""

    folder: Path
    storage: str
    stages: list[Stage]
    s3: Server
    prefect: Server
    dask: Dask
    worker: Worker
    launcher: Launcher
    environment: dict[str, str]
    calm: Undisturbed
    seed: int
    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    metrics: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._errors = self.folder / "errors"
        self._errors.mkdir(exist_ok=True)

    @property
    def kills(self) -> int:
        return self.table.total()

    def undisturbed(self) -> None:
        """Run every stage in peace, once for all campaigns."""
        for stage in self.stages:
            if stage.name in self.calm.lengths:
                continue
            output, began = self._output(stage, "reference"), time.monotonic()
            run = self._command(stage, output, "inline")
            assert run.wait() == 0, self._said(run)
            self.calm.lengths[stage.name] = time.monotonic() - began
            self.calm.trees[stage.name] = stage.tree(output)

    def run(self, kills: int) -> None:
        """Kill so often, stage after stage and round after round, and let every output be finished."""
        number = 0
        while self.kills < kills:
            for stage in self.stages:
                if self.kills < kills:
                    self._disturb(stage, self._output(stage, f"round-{self.seed}-{number}"), kills)
            number += 1

    def _disturb(self, stage: Stage, output: str, kills: int) -> None:
        """Attempts at one output until it is published; the last ones are left in peace."""
        for attempt in range(_GIVE_UP):
            ways = ["inline"] * 3 + ["dask"] * 4 * stage.on_dask + ["deployment"]
            way = self.random.choice(ways + ["parts"] * 2 * stage.parts * (attempt == 0))
            victims = self._victims(way)[: max(0, kills - self.kills)] if attempt < _DISTURBED else []
            if self._attempt(stage, output, way, victims):
                break
        assert stage.published(output), f"{stage.name} at {output} is not finished by the same command"
        self._compare(stage, output)
        self.metrics["outputs finished"] += 1
        (self.folder / f"progress-{self.seed}.md").write_text(self.tell())

    def _victims(self, way: str) -> list[tuple[str, float]]:
        """Who dies when, as a share of the length of the stage."""
        count = self.random.choice((1, 2, 3, 4) if way == "dask" else (1, 1, 2, 2))
        # Most of a short run is imports: the later part is where there is something to lose.
        moments = sorted(self.random.choice((0.1, 0.4, 0.6, 0.75)) + self.random.uniform(0, 0.3) for _ in range(count))
        return [(self.random.choice(VICTIMS[way]), moment) for moment in moments]

    def _attempt(self, stage: Stage, output: str, way: str, victims: list[tuple[str, float]]) -> bool:
        """One start of the command; whether it came to its end."""
        if way == "deployment":
            return self._deployed(stage, output, victims)
        began = time.monotonic()
        if way == "parts":
            runs = [self._command(stage, output, "inline", "--parts", f"{k}/2") for k in (1, 2)]
        else:
            runs = [self._command(stage, output, self.dask.cluster if way == "dask" else "inline")]
        for victim, share in victims:
            over = self._wait(
                began + share * self.calm.lengths[stage.name], lambda: all(r.poll() is not None for r in runs)
            )
            if over:
                break
            self._kill(victim, stage, lambda: kill(next((r for r in runs if r.poll() is None), runs[0])))
            self._look(stage, output)
        done = [self._ended(run, stage) for run in runs]
        self._look(stage, output)
        return all(done) and way != "parts"

    def _ended(self, run: Launched, stage: Stage) -> bool:
        code = run.wait(_LONGEST)
        if code == _WORDS:
            self.metrics["runs that ended in words"] += 1
        elif code not in (0, -signal.SIGKILL):
            self.wrong.append(f"{stage.name}: exit code {code}: {self._said(run)}")
        elif code == 0 and self.kills:
            self.metrics["runs that came to their end"] += 1
        return code == 0

    def _deployed(self, stage: Stage, output: str, victims: list[tuple[str, float]]) -> bool:
        """A run by the worker. One whose worker died is left behind, as it would be, and a new one is asked for."""
        run = self._ask_for(stage, output)
        wait_until(lambda: self._state(run) not in ("PENDING", "SCHEDULED"), 90, "a start of a run")
        began = time.monotonic()
        for victim, share in victims:
            at = began + share * self.calm.lengths[stage.name]
            if self._wait(at, lambda: self._state(run) in _OVER, poll=0.2):
                break
            with_runs = self.random.random() < 0.5
            died = self.worker.kill_runs if victim == "flow" else partial(self.worker.kill, with_runs=with_runs)
            self._kill(victim, stage, died)
            self._look(stage, output)
            if victim == "Prefect worker":
                self.worker.start()
                return False
        wait_until(lambda: self._state(run) in _OVER, _LONGEST, f"an end of {run}")
        state = self._api("GET", f"flow_runs/{run}")["state"]
        self.metrics[f"deployed runs {state['type'].lower()}"] += 1
        if state["type"] == "FAILED" and not any(name in str(state["message"]) for name in _TOLD):
            self.wrong.append(f"{stage.name}: a deployed run failed: {state['message']}")
        return bool(state["type"] == "COMPLETED")

    def _kill(self, victim: str, stage: Stage, running: Callable[[], None]) -> None:
        self.table[victim, stage.name] += 1
        away = self.random.uniform(0, 5)
        if victim == "Dask worker":
            self.dask.replace(self.random.randrange(2))
        elif victim in ("S3 server", "Prefect server"):
            server = self.s3 if victim == "S3 server" else self.prefect
            server.kill()
            time.sleep(away)
            server.start()
        else:
            running()

    @staticmethod
    def _wait(until: float, over: Ended, poll: float = 0.02) -> bool:
        while time.monotonic() < until:
            if over():
                return True
            time.sleep(poll)
        return over()

    def _look(self, stage: Stage, output: str) -> None:
        """What must hold at any moment: what is published is right, and no checkpoint is broken."""
        if stage.local:
            self.wrong += [f"unreadable: {location}" for location in unreadable_checkpoints(Path(output))]
            self.metrics["looks at checkpoints"] += 1
        if stage.published(output):
            self._compare(stage, output)

    def _compare(self, stage: Stage, output: str) -> None:
        self.metrics["publications compared"] += 1
        found, wanted = stage.tree(output), self.calm.trees[stage.name]
        differing = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
        if differing:
            self.wrong.append(f"{stage.name}: {output} differs in {', '.join(differing[:5])} ({len(differing)})")

    def _output(self, stage: Stage, under: str) -> str:
        return f"{self.folder if stage.local else self.storage}/{under}/{stage.name}"

    def _command(self, stage: Stage, output: str, cluster: str, *more: str) -> Launched:
        errors = self._errors / f"{time.monotonic_ns()}"
        run = self.launcher.start([*stage.run(output, cluster), *more, "--json"], self.folder, errors)
        run.errors = errors  # type: ignore[attr-defined]
        return run

    @staticmethod
    def _said(run: Launched) -> str:
        return str(run.errors.read_text(errors="replace")[-1500:])  # type: ignore[attr-defined]

    def _ask_for(self, stage: Stage, output: str) -> str:
        cluster = (
            {"kind": "address", "address": self.dask.address} if self.random.random() < 0.5 else {"kind": "inline"}
        )
        asked = {"parameters": stage.asked(output, cluster)}
        location = f"deployments/{self._deployments()[stage.name]}/create_flow_run"
        return str(self._api("POST", location, {"state": {"type": "SCHEDULED"}, "parameters": asked})["id"])

    def _deployments(self) -> dict[str, str]:
        return {d["name"]: d["id"] for d in self._api("POST", "deployments/filter", {})}

    def _state(self, run: str) -> str:
        return str(self._api("GET", f"flow_runs/{run}")["state"]["type"])

    def _api(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        """One request to Prefect's server; again while SQLite is busy or it starts."""
        url = f"{self.environment['PREFECT_API_URL']}/{path}"
        body = None if content is None else json.dumps(content).encode()
        for attempt in range(8):
            asked = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
            try:
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    return json.load(answer)
            except OSError:
                time.sleep(0.5 * (attempt + 1))
        raise AssertionError(f"{method} {url} does not work")

    def tell(self) -> str:
        """What was killed and what came of it, as Markdown."""
        victims = sorted({victim for victim, _ in self.table})
        lines = [f"{self.kills} kills, seed {self.seed}", "", f"| killed during | {' | '.join(victims)} |"]
        lines.append("|---" * (len(victims) + 1) + "|")
        for stage in self.stages:
            lines.append(f"| {stage.name} | {' | '.join(str(self.table[v, stage.name]) for v in victims)} |")
        lengths = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.calm.lengths.items())
        lines += [
            "",
            f"- undisturbed: {lengths}",
            *(f"- {name}: {count}" for name, count in sorted(self.metrics.items())),
        ]
        lines += [f"- wrong: {len(self.wrong)}", *self.wrong]
        return "\n".join(lines)
