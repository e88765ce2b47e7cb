"""Load, compute and store side by side: the next items are fetched and the last ones written while one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")
Stored = TypeVar("Stored")


def pipelined(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    compute: Callable[[Loaded], Computed],
    store: Callable[[Computed], Stored],
    *,
    ahead: int = 1,
    behind: int = 2,
) -> Iterator[Stored]:
    """Yield ``store(compute(load(item)))`` of every item, in order.

    ``compute`` runs in the caller's thread, on one item at a time: the device is its alone. ``load`` runs up to
    ``ahead`` items before it in one thread, ``store`` up to ``behind`` items after it in as many: memory is bounded.
    An error ends the run; what was stored before stays.
    """
    loaders, storers = ThreadPoolExecutor(1, "load"), ThreadPoolExecutor(behind, "store")
    waiting = iter(items)
    loading: deque[Future[Loaded]] = deque()
    storing: deque[Future[Stored]] = deque()
    try:
        for item in islice(waiting, ahead):
            loading.append(loaders.submit(load, item))
        while loading or storing:
            while storing and (storing[0].done() or len(storing) >= behind or not loading):
                yield storing.popleft().result()
            if loading:
                loaded = loading.popleft().result()
                for item in islice(waiting, 1):
                    loading.append(loaders.submit(load, item))
                storing.append(storers.submit(store, compute(loaded)))
                del loaded  # or it would be held while the next is waited for
    finally:
        loaders.shutdown(wait=True, cancel_futures=True)
        storers.shutdown(wait=True, cancel_futures=True)
