"""What ends a command from outside of the product ends it in words."""

from __future__ import annotations

import errno

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from flows.cli.console import USER_ERROR, user_errors
from pngmodel.errors import NonFiniteError


def status(code: int) -> PrefectHTTPStatusError:
    request = httpx.Request("GET", "http://127.0.0.1:4200/api/x")
    return PrefectHTTPStatusError("it said so", request=request, response=httpx.Response(code, request=request))


LOST = r"Prefect's server at http://127\.0\.0\.1:4200/api does not answer as it should"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ConnectError("refused"), LOST),
        (httpx.ReadTimeout("silence"), LOST),
        (status(503), LOST),
        (RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/"), LOST),
        (OSError(errno.EIO, "x", "weights.bin"), "weights.bin: Input/output error; mend the disk"),
        (OSError(errno.ENOSPC, "x"), "a file of this run: No space left on device"),
        (NonFiniteError("step 3: the loss is nan"), "step 3: the loss is nan"),
    ],
)
def test_it_ends_in_words(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    with pytest.raises(SystemExit) as left, user_errors():
        raise error
    assert left.value.code == USER_ERROR
    said = " ".join(capsys.readouterr().err.split())
    assert words.replace("\\", "") in said


@pytest.mark.parametrize("error", [RuntimeError("a defect"), status(404), OSError(errno.ECHILD, "x"), KeyError("x")])
def test_defects_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), user_errors():
        raise error
