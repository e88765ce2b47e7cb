"""The long form of the fuzzing: atheris on every target of the table, one process each; prints a Markdown table.

    make fuzz                                             all targets
    python tests/campaigns/fuzz.py --target tar --seconds 600
    python tests/campaigns/fuzz.py --replay fuzz-findings/tar/0123456789abcdef.input

A finding is an input with its traceback, one for each place in the code and kind of error. Hangs and memory beyond the
limit end a process; the next one goes on with another seed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

SECONDS, SEED = 60, 20260801
INPUT_SECONDS = 20  # a longer one is a hang
RSS_MB, ADDRESS_SPACE = 2048, 16 << 30
LARGEST = 1 << 17  # bytes of an input
STRUCTURED = 3  # of four inputs so many are made by edits that know the format
PACKAGES = ["tasks", "pngmodel", "flows", "tarfile", "zipfile", "tifffile"]
"""Whose branches are looked for: the product's, and those of parsers in Python that it uses."""
_KINDS = ("*.input", "timeout-", "oom-", "crash-")
_STAT = re.compile(r"stat::(number_of_executed_units|peak_rss_mb):\s+(\d+)")


@dataclass
class Measurements:
    """What came of one target."""

    name: str
    executions: int = 0
    seconds: float = 0.0
    start_mb: int = 0
    peak_mb: int = 0
    findings: int = 0

    def row(self) -> str:
        rate = self.executions / max(self.seconds, 1e-9)
        return (
            f"| {self.name} | {self.executions} | {self.seconds:.0f} | {rate:.0f} | {self.findings} | "
            f"{self.start_mb} | {self.peak_mb} |"
        )


HEAD = (
    "| target | executions | seconds | a second | unique failures | MB at start | MB at peak |\n"
    "|---|--:|--:|--:|--:|--:|--:|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of every target")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, default=Path("fuzz-findings"), help="folder of failing inputs")
    parser.add_argument("--replay", type=Path, help="read one failing input again: FOLDER/TARGET/NAME.input")
    given = parser.parse_args()
    if given.replay is not None:
        replay(given.replay)
    else:
        sys.exit(campaign(given.target, given.seconds, given.seed, given.output))


def campaign(names: list[str] | None, seconds: int, seed: int, output: Path) -> int:
    """Fuzz the targets one after the other; 1 where something was found."""
    import atheris

    with atheris.instrument_imports(include=PACKAGES):
        table = importlib.import_module("tests.faults.fuzz.targets").TARGETS
    found = 0
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        ground = importlib.import_module("tests.faults.fuzz.ground").Ground(Path(folder) / "ground")
        for name in names or table:
            metrics = one(name, table[name](ground), seconds, seed, output.resolve() / name)
            found += metrics.findings
            print(metrics.row(), flush=True)
    return int(found > 0)


def one(name: str, target: Any, seconds: int, seed: int, findings: Path) -> Measurements:
    """Processes of one target, until its time is over. They are forked: importing the product takes longer."""
    metrics = Measurements(name, start_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    findings.mkdir(parents=True, exist_ok=True)
    while (left := seconds - metrics.seconds) >= 1:
        log, started = findings / f"process-{seed}.log", time.monotonic()
        child = os.fork()
        if child == 0:
            _end_in(lambda left=left, seed=seed: fuzz(target, int(left), seed, findings), log)
        status = os.waitpid(child, 0)[1]
        metrics.seconds += time.monotonic() - started
        told = log.read_text(errors="replace")
        stats = dict(_STAT.findall(told))
        done = re.findall(r"^#(\d+)\s", told, re.MULTILINE)  # where it was ended before it could tell
        metrics.executions += int(stats.get("number_of_executed_units", done[-1] if done else 0))
        metrics.peak_mb = max(metrics.peak_mb, int(stats.get("peak_rss_mb", 0)))
        if status == 0:
            log.unlink()
            break
        seed += 1
    metrics.findings = sum(len(list(findings.glob(f"{kind}*"))) for kind in _KINDS)
    return metrics


def _end_in(act: Callable[[], None], log: Path) -> None:
    """In a forked process: do it with standard error in a file, and end."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def fuzz(target: Any, seconds: int, seed: int, findings: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    edits = importlib.import_module("tests.faults.fuzz.edits")
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))
    for k, content in enumerate((*target.seeds, *edits.STANDING[target.kind])):
        (corpus / f"{k:03d}").write_bytes(content)

    def test_one(content: bytes) -> None:
        try:
            target.run(content)
        except Exception as error:
            keep(findings, content, error)

    def mutated(content: bytes, most: int, number: int) -> bytes:
        chosen = random.Random(number)
        if chosen.randrange(4) >= STRUCTURED:
            return bytes(atheris.Mutate(content, most))
        base = chosen.choice(target.seeds) if chosen.randrange(3) == 0 else content
        return bytes(edits.edited(base, target.kind, chosen.randrange)[:most])

    options = {
        "max_total_time": seconds,
        "timeout": INPUT_SECONDS,
        "rss_limit_mb": RSS_MB,
        "seed": seed,
        "max_len": LARGEST,
        "print_final_stats": 1,
        "artifact_prefix": f"{findings}/",
        "len_control": 0,
    }
    arguments = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], test_one, custom_mutator=mutated)
    atheris.Fuzz()


def keep(folder: Path, content: bytes, error: Exception) -> None:
    """Store a failing input and its traceback, the first of its kind."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if str(CHECKOUT) in f.filename]
    location = [(Path(f.filename).name, f.name) for f in frames if str(CHECKOUT / "tests") not in f.filename][-2:]
    name = hashlib.sha256(repr((type(error).__name__, location)).encode()).hexdigest()[:16]
    if not (folder / f"{name}.input").exists():
        (folder / f"{name}.input").write_bytes(content)
        (folder / f"{name}.txt").write_text("".join(traceback.format_exception(error)), errors="replace")


def replay(path: Path) -> None:
    """Read one failing input again, with nothing caught."""
    with tempfile.TemporaryDirectory() as folder:
        target: Any = importlib.import_module("tests.faults.fuzz.targets").TARGETS[path.parent.name](
            importlib.import_module("tests.faults.fuzz.ground").Ground(Path(folder))
        )
        print("accepted" if target.run(path.read_bytes()) else "refused in words")


if __name__ == "__main__":
    main()
