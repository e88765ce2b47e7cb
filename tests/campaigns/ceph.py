"""A Ceph gateway on loopback that enforces policies: a monitor, a store in memory, radosgw; it ends with its test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
SECRET = "planted-key-of-{}"

_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{monitor}/0
ms bind msgr1 = false
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
mon allow pool size one = true
mon data avail crit = 1
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
memstore device bytes = 268435456
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
keyring = {folder}/keyring
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw thread pool size = 16
rgw run sync thread = false
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(met: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen in {seconds:g} s")
        time.sleep(0.3)


class Ceph:
    """The gateway at ``endpoint``."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, list[subprocess.Popen[bytes]]()
        gateway = _port()
        self.endpoint = f"http://127.0.0.1:{gateway}"
        self._fsid, self._monitor = str(uuid.uuid4()), _port()
        for name in ("mon", "osd"):
            (folder / name).mkdir(parents=True)
        (folder / "keyring").touch()
        text = _CONFIGURATION.format(folder=folder, fsid=self._fsid, monitor=self._monitor, gateway=gateway)
        (folder / "ceph.conf").write_text(text)

    def start(self) -> None:
        """All of it; a few seconds."""
        monmap, osd = str(self._folder / "monmap"), str(uuid.uuid4())
        address = f"[v2:127.0.0.1:{self._monitor}/0]"
        subprocess.run(
            ["monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", address, monmap],
            check=True,
            capture_output=True,
        )
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._run("ceph-mon", "-i", "a", "-f")
        _until(lambda: self._works("ceph", "--connect-timeout", "5", "osd", "stat"), "the monitor")
        self._call("ceph", "osd", "new", osd, "0")
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run("ceph-osd", "-i", "0", "-f")
        _until(lambda: b" 1 up" in self._call("ceph", "osd", "stat"), "the store")
        self.user("owner")
        self._run("radosgw", "-n", "client.rgw.a", "-f")
        _until(self._answers, "the gateway")

    def user(self, name: str) -> None:
        """Make a user whose keys are its name and :data:`SECRET`."""
        keys = ("--access-key", name, "--secret-key", SECRET.format(name))
        self._call("radosgw-admin", "user", "create", "--uid", name, "--display-name", name, *keys)

    def stop(self) -> None:
        """End what was started."""
        for process in reversed(self._running):
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.endpoint, timeout=2):
                return True
        except OSError:
            return False

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [program, "-c", str(self._folder / "ceph.conf"), *arguments]

    def _call(self, program: str, *arguments: str) -> bytes:
        command = self._command(program, *arguments)
        return subprocess.run(command, check=True, capture_output=True, timeout=120, env=self._environment()).stdout

    def _works(self, program: str, *arguments: str) -> bool:
        command = self._command(program, *arguments)
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        null, command = subprocess.DEVNULL, self._command(program, *arguments)
        self._running.append(subprocess.Popen(command, stdout=null, stderr=null, env=self._environment()))

    @staticmethod
    def _environment() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CEPH_"))}
