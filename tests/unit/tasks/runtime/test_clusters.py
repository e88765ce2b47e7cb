"""Clusters: errors come quickly and in words; the Dask ones run in tests/integration."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from pathlib import Path

import pytest

from pngmodel.errors import UserError
from tasks.runtime import clusters
from tasks.runtime.clusters import ClusterConfig, run_each
from tasks.runtime.parameters import load_cluster


def double(item: int) -> int:
    if item == 3:
        raise UserError("item 3 cannot be used")
    return 2 * item


def test_inline_gives_every_item_with_its_result() -> None:
    assert list(run_each(ClusterConfig(kind="inline"), double, [1, 2, 5])) == [(1, 2), (2, 4), (5, 10)]


def test_the_error_of_an_item_comes_out_after_what_is_done() -> None:
    found = []
    with pytest.raises(UserError, match="item 3"):
        found.extend(run_each(ClusterConfig(kind="inline"), double, [3]))
    run = run_each(ClusterConfig(kind="inline"), double, [1, 3, 4])
    assert next(run) == (1, 2)
    with pytest.raises(UserError, match="item 3"):
        next(run)


def test_no_items_need_no_cluster() -> None:
    assert list(run_each(ClusterConfig(kind="address", address="tcp://127.0.0.1:1"), double, [])) == []


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(UserError, match=address):
        list(run_each(ClusterConfig(kind="address", address=address), double, [1]))


@pytest.mark.parametrize("listening", [False, True], ids=["closed", "silent"])
def test_an_address_no_scheduler_answers_at_is_named_in_good_time(
    listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_CONNECT_SECONDS", 1.0)  # 10 s otherwise
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # kept, so that nobody else gets the port
        if listening:
            other.listen()
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(UserError, match=rf"no Dask scheduler answers at {address}"):
            list(run_each(ClusterConfig(kind="address", address=address), double, [1]))
        assert time.monotonic() - started < 8


def test_something_else_than_a_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_CONNECT_SECONDS", 1.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"tcp://127.0.0.1:{other.server_address[1]}"
        with pytest.raises(UserError, match=rf"no Dask scheduler answers at {address}"):
            list(run_each(ClusterConfig(kind="address", address=address), double, [1]))
        other.shutdown()


def test_an_address_is_needed() -> None:
    with pytest.raises(UserError, match="'address'"):
        list(run_each(ClusterConfig(kind="address"), double, [1]))


def test_files_and_names(tmp_path: Path) -> None:
    root = Path(__file__).parents[4] / "configs" / "clusters"
    for path in root.glob("*.yaml"):
        assert load_cluster(str(path)).kind == {"gpus": "local", "gpu-scheduler": "address"}.get(path.stem, path.stem)
    assert load_cluster("local").kind == "local"
    (tmp_path / "c.yaml").write_text("kind: cloud\n")
    with pytest.raises(UserError, match=r"c\.yaml.*'kind'.*'cloud'"):
        load_cluster(str(tmp_path / "c.yaml"))
    with pytest.raises(UserError, match=r"many: no such file"):
        load_cluster("many")
