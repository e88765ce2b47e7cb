"""Overlaps loading, computing and storing: while one item is computed, the next are loaded and previous ones stored."""

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
    """Yield ``store(compute(load(item)))`` for every item, in order.

    An error stops the pipeline; items that are already stored are kept.

    Args:
        items: Inputs.
        load: Runs in one background thread.
        compute: Runs in the caller's thread, one item at a time, so that it has exclusive use of the device.
        store: Runs in ``behind`` background threads.
        ahead: Number of items loaded in advance; bounds memory.
        behind: Number of computed items that may wait to be stored; bounds memory.
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
                del loaded  # release memory before waiting for the next item
    finally:
        loaders.shutdown(wait=True, cancel_futures=True)
        storers.shutdown(wait=True, cancel_futures=True)
