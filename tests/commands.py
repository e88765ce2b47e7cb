"""`pngnoise` as a user calls it, but in the process of the test."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from flows.cli.app import call


@dataclass(frozen=True)
class Result:
    """Exit code and output of a command."""

    exit_code: int
    stdout: str
    stderr: str


def run(*arguments: Any) -> Result:
    """`pngnoise ARGUMENTS`."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            call([str(argument) for argument in arguments])
        except SystemExit as left:
            code = int(left.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def answer(*arguments: Any) -> Any:
    """What a command prints with --json; it must succeed."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result
    return json.loads(result.stdout)


def refused(result: Result, *words: str) -> None:
    """Exit code 2, the words on standard error, no traceback, nothing on standard output."""
    assert result.exit_code == 2, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "\nerror: " in "\n" + result.stderr  # below the progress bar
    for word in words:
        assert word in result.stderr
