"""An HTTP proxy between the product and an S3-speaking server that goes wrong on purpose, in seeded ways.

Whether a request meets a fault follows from the seed, the request and how often it was made, not from threads or time:
the same seed disturbs the same requests again.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ANY = ("error 500", "SlowDown", "reset before the answer", "time-out")
READS = ("reset in the body", "truncated body", "flipped bit")
ROTTEN = "rotten object"
"""Damaged where it lies: always in the same way. No fault of the way, so none of FAULTS."""
FAULTS = (*ANY, *READS, "lost answer to a write", "stale listing")
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}
_ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>planted</Message><RequestId>0</RequestId></Error>'
_NOW = struct.pack("ii", 1, 0)  # SO_LINGER: a reset instead of an orderly end


class FaultyProxy:
    """Listens on loopback while the block lasts. ``rates``: share of the requests of that kind that meet a fault.

    ``counted`` is what was injected by kind; ``requests`` how often each (method, path) was asked for; ``only``
    limits faults to paths that hold this text, ``most`` their number.
    """

    def __init__(
        self,
        server: str,
        rates: Mapping[str, float],
        seed: int = 0,
        *,
        silence: float = 4.0,
        only: str = "",
        most: int | None = None,
    ) -> None:
        assert set(rates) <= {*FAULTS, ROTTEN}, rates
        self.server, self.rates, self.seed, self.silence, self.only = urlsplit(server), dict(rates), seed, silence, only
        self.most = most
        self.counted: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()
        self._listings: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._asked: defaultdict[str, int] = defaultdict(int)

    def __enter__(self) -> FaultyProxy:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def fault(self, method: str, target: str) -> str | None:
        """What this request meets; counts the request."""
        path = urlsplit(target).path
        listing = method == "GET" and "list-type" in parse_qs(urlsplit(target).query)
        with self._lock:
            self.requests[method, path] += 1
            self._asked[f"{method} {target}"] += 1
            drawn = random.Random(f"{self.seed} {method} {target} {self._asked[f'{method} {target}']}")
        if self.only not in path or (self.most is not None and self.counted.total() >= self.most):
            return None
        read, write = method == "GET" and not listing, method in ("PUT", "POST", "DELETE")
        possible = [*ANY, *(*READS, ROTTEN) * read, *("lost answer to a write",) * write, *("stale listing",) * listing]
        for name in possible:
            if drawn.random() < self.rates.get(name, 0):
                return name
        return None

    def count(self, name: str) -> None:
        with self._lock:
            self.counted[name] += 1

    def listing(self, target: str, fresh: bytes, stale: bool) -> bytes:
        """The answer to a listing, or what it was the last time."""
        with self._lock:
            before = self._listings.get(target)
            self._listings[target] = fresh
        if stale and before is not None and before != fresh:
            self.count("stale listing")
            return before
        return fresh


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self._body()
        fault = self.proxy.fault(self.command, self.path)
        if fault in ("error 500", "SlowDown"):
            self.proxy.count(fault)
            status, code = (500, "InternalError") if fault == "error 500" else (503, "SlowDown")
            self._answer(status, {"Content-Type": "application/xml"}, _ERROR.format(code).encode())
        elif fault == "reset before the answer":
            self.proxy.count(fault)
            self._reset()
        elif fault == "time-out":
            self.proxy.count(fault)
            time.sleep(self.proxy.silence)
            self._reset()
        else:
            self._forward(body, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes, fault: str | None) -> None:
        upstream = http.client.HTTPConnection(str(self.proxy.server.hostname), self.proxy.server.port, timeout=60)
        # The signature covers Host, so it is passed on as it is.
        given = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        try:
            upstream.request(self.command, self.path, body, given)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")
        good = answer.status < http.HTTPStatus.MULTIPLE_CHOICES
        if "list-type" in parse_qs(urlsplit(self.path).query) and good:
            content = self.proxy.listing(self.path, content, stale=fault == "stale listing")
        elif fault == "lost answer to a write" and good:
            self.proxy.count(fault)
            self._reset()
            return
        elif fault in (*READS, ROTTEN) and good and content:
            self._spoil(answer.status, headers, content, fault)
            return
        self._answer(answer.status, headers, content)

    def _spoil(self, status: int, headers: dict[str, str], content: bytes, fault: str) -> None:
        """A body that is not what was stored, as by a server that sends no checksums."""
        self.proxy.count(fault)
        headers = {k: v for k, v in headers.items() if not k.lower().startswith("x-amz-checksum")}
        # On the way it is elsewhere each time.
        location, bit = (0, 0) if fault == ROTTEN else (random.randrange(len(content)), random.randrange(8))
        if fault == "reset in the body":
            self._answer(status, headers, content[:location], promised=len(content))
            self._reset()
        elif fault == "truncated body":
            self._answer(status, headers, content[:location])
        else:
            self._answer(
                status,
                headers,
                content[:location] + bytes([content[location] ^ 1 << bit]) + content[location + 1 :],
            )

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes, promised: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content) if promised is None else promised))
        self.end_headers()
        with suppress(OSError):  # the client has given up
            if self.command != "HEAD":
                self.wfile.write(content)
            self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            self.connection.close()
