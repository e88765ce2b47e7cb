"""A bound on what a network may allocate while it is built: the sizes in a file may be anybody's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLED = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full}
_COUNTED = {torch.arange, torch.linspace, torch.eye}


class BoundedBuild(TorchFunctionMode):
    """Inside of the block so many ``tensors`` of ``most`` values together can be made; one more is a ValueError, before
    it is made.

    What a file of weights holds is known before the network exists, so that a network that is larger need not be built
    to see that they do not fit.
    """

    def __init__(self, most: int, tensors: int) -> None:
        self._most, self._left, self._tensors = most, most, tensors
        super().__init__()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch in the place of its functions."""
        given = kwargs or {}
        if func in _FILLED or func in _COUNTED:
            self._left -= _asked(func, args, given)
            self._tensors -= 1
            if min(self._left, self._tensors) < 0:
                raise ValueError(f"its sizes ask for more than {self._most} values or too many parts")
        return func(*args, **given)


def _asked(func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> int:
    if func is torch.eye:
        sides = [int(side) for side in args[:2]]
        return math.prod(sides * 2 if len(sides) == 1 else sides)
    if func in _COUNTED:
        return int(max((abs(number) for number in args if isinstance(number, (int, float))), default=0))
    first = given.get("size", args[0] if args else 0)
    return math.prod(map(int, first if isinstance(first, Iterable) else [n for n in args if isinstance(n, int)]))
