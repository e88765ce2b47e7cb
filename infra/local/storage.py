"""The S3-compatible server of the local stack: command, environment, bucket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import s3fs

from pngmodel.errors import UserError

_REQUIREMENTS = Path(__file__).with_name("s3-requirements.txt")


def server_command(folder: Path) -> list[str]:
    """Return the command of the server, which is installed on first use.

    Raises:
        UserError: The installation failed.
    """
    environment, stamp = folder / "environment", folder / "environment" / "installed"
    if not stamp.exists() or stamp.read_text() != _REQUIREMENTS.read_text():
        python = str(environment / "bin" / "python")
        for command in (
            [sys.executable, "-m", "venv", str(environment)],
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(_REQUIREMENTS)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(
                    f"{environment}: cannot install the S3-compatible server: {done.stderr.strip()[-800:]}; fix the "
                    "error, or set AWS_ENDPOINT_URL to an existing server"
                )
        stamp.write_text(_REQUIREMENTS.read_text())
    return [str(environment / "bin" / "ministack")]


def server_environment(folder: Path, port: int) -> dict[str, str]:
    """Return its environment: S3 only, on loopback, with persistence on disk."""
    return {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "objects"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(folder / "state"),
    }


def make_bucket(storage: str, environment: Mapping[str, str]) -> None:
    """Create the bucket of ``s3://bucket/...`` if it does not exist."""
    bucket = storage.removeprefix("s3://").split("/")[0]
    files = s3fs.S3FileSystem(
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        key=environment.get("AWS_ACCESS_KEY_ID"),
        secret=environment.get("AWS_SECRET_ACCESS_KEY"),
        skip_instance_cache=True,
    )
    if not files.exists(bucket):
        files.mkdir(bucket)
