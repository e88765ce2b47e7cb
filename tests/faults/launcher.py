"""Starts commands by forking a process that has imported everything: a start takes a second and not ten.

python launcher.py reads lines of JSON from standard input, {"arguments": [...], "folder": ..., "errors": ...}, runs
`pngnoise ARGUMENTS` in a process and session of its own, and writes {"pid": ...}, and {"pid": ..., "code": ...} when it
has ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from typing import Any

from flows.cli.app import main
from flows.cli.console import prepare_prefect

_IMPORTED = (
    *("flows.ingest_dataset", "flows.extract_patches", "flows.train_noise_model", "flows.generate_synthetic_corpus"),
    *("aiobotocore.session", "s3fs", "distributed"),
)


def start(asked: dict[str, Any]) -> int:
    """Fork, and be the command in the child; returns its number in the parent."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.chdir(asked["folder"])
    null, errors = os.open(os.devnull, os.O_RDWR), os.open(asked["errors"], os.O_WRONLY | os.O_CREAT, 0o644)
    for number, target in enumerate((null, null, errors)):
        os.dup2(target, number)
    sys.argv = ["pngnoise", *asked["arguments"]]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def tell(content: dict[str, int]) -> None:
    """One line to whoever asked; also called between two bytecodes of another line, so written at once."""
    os.write(1, json.dumps(content).encode() + b"\n")


def reap(*_: object) -> None:
    """Tell of every child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        tell({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    prepare_prefect()
    for module in _IMPORTED:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a fork would lose threads"
    signal.signal(signal.SIGCHLD, reap)
    tell({"pid": 0})  # ready
    for line in sys.stdin:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # first its start is told, then its end
        tell({"pid": start(json.loads(line))})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
