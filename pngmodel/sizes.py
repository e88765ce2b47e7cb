"""Limit on the memory that a network may allocate while it is built, because sizes in files are untrusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLED = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full}
_COUNTED = {torch.arange, torch.linspace, torch.eye}


class BoundedBuild(TorchFunctionMode):
    """Limits the number of tensors, and of their values in total, that torch creates in the block.

    Exceeding a limit raises :class:`ValueError` before the tensor is allocated. The limits follow from the weights in a
    file, so that a much larger network is rejected without building it.
    """

    def __init__(self, values: int, tensors: int) -> None:
        self._limit, self._left, self._tensors = values, values, tensors
        super().__init__()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept calls of torch functions."""
        keywords = kwargs or {}
        if func in _FILLED or func in _COUNTED:
            self._left -= _requested_values(func, args, keywords)
            self._tensors -= 1
            if min(self._left, self._tensors) < 0:
                raise ValueError(f"the configured sizes require more than {self._limit} values, or too many tensors")
        return func(*args, **keywords)


def _requested_values(func: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> int:
    if func is torch.eye:
        sides = [int(side) for side in args[:2]]
        return math.prod(sides * 2 if len(sides) == 1 else sides)
    if func in _COUNTED:
        return int(max((abs(number) for number in args if isinstance(number, (int, float))), default=0))
    first = keywords.get("size", args[0] if args else 0)
    return math.prod(map(int, first if isinstance(first, Iterable) else [n for n in args if isinstance(n, int)]))
