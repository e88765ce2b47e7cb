"""Conversion of images between supported array types and float32 (B, C, H, W) in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from pngmodel.errors import UserError

Image: TypeAlias = "np.ndarray | Tensor"
CHANNEL_COUNTS = (1, 3)
_PEAKS: dict[str, int] = {"uint8": 255, "uint16": 65535}
_FLOATS = ("float16", "float32", "float64", "bfloat16")


@dataclass(frozen=True)
class ImageFormat:
    """Library, dtype, layout and device of an image, to convert results back to them."""

    is_torch: bool
    dtype: str  # "uint8", "uint16", "float16", "bfloat16", "float32" or "float64"
    batched: bool
    channels: str  # "last", "first" or "none" (a 2-D grey image)
    device: torch.device

    @property
    def peak(self) -> int | None:
        """White level of integer images; None for floating point images in [0, 1]."""
        return _PEAKS.get(self.dtype)


def _dtype_name(image: Image) -> str:
    return str(image.dtype).removeprefix("torch.")


def _layout(shape: tuple[int, ...], name: str) -> tuple[bool, str]:
    if len(shape) == 2:
        return False, "none"
    if len(shape) in (3, 4):
        if shape[-1] in CHANNEL_COUNTS:
            return len(shape) == 4, "last"
        if shape[-3] in CHANNEL_COUNTS:
            return len(shape) == 4, "first"
    raise UserError(
        f"{name}: shape {shape} is not an image; expected (H, W), (H, W, C), (C, H, W) or a batch of the "
        f"last two, with C in {CHANNEL_COUNTS}"
    )


def to_unit(image: Image, name: str = "image") -> tuple[Tensor, ImageFormat]:
    """Convert an image or batch to float32 (B, C, H, W) in [0, 1]; return it and its format.

    Args:
        image: NumPy array or torch tensor of dtype uint8, uint16 or float in [0, 1], with shape (H, W), (H, W, C),
            (C, H, W), or a batch of the last two; C is 1 or 3. If the first and last axis could both be channels, the
            last one is used.
        name: Name of the image in errors.

    Raises:
        UserError: The dtype or shape is not supported, the image is empty, or values are not finite or outside [0, 1].
    """
    if not isinstance(image, (np.ndarray, Tensor)):
        raise UserError(f"{name}: type {type(image).__name__} is not supported; use a NumPy array or torch tensor")
    dtype = _dtype_name(image)
    if dtype not in _PEAKS and dtype not in _FLOATS:
        raise UserError(f"{name}: dtype {dtype} is not supported; use uint8, uint16 or float in [0, 1]")
    batched, channels = _layout(tuple(image.shape), name)
    if min(image.shape) == 0:
        raise UserError(f"{name}: the image is empty (shape {tuple(image.shape)}); use an image with pixels")
    is_torch = isinstance(image, Tensor)
    device = image.device if isinstance(image, Tensor) else torch.device("cpu")
    if isinstance(image, np.ndarray):
        # torch has few uint16 kernels, so convert in NumPy; float32 represents 16 bits exactly
        with np.errstate(over="ignore"):  # values beyond float32 become infinite and are rejected below
            x = torch.from_numpy(np.ascontiguousarray(image.astype(np.float32)))
    else:
        x = image.detach().to(torch.float32, copy=True)  # do not modify the memory of the caller
    if channels == "none":
        x = x[None, None]
    else:
        x = x if batched else x[None]
        x = x.movedim(-1, 1) if channels == "last" else x
    peak = _PEAKS.get(dtype)
    if peak is not None:
        x = x / peak
    elif not bool(torch.isfinite(x).all()):
        raise UserError(f"{name}: has NaN or infinite values; use finite values in [0, 1]")
    elif float(x.min()) < 0 or float(x.max()) > 1:
        raise UserError(
            f"{name}: float images must be in [0, 1], got {float(x.min()):.4g} to {float(x.max()):.4g}; "
            "divide by the white level first"
        )
    return x.contiguous(), ImageFormat(is_torch, dtype, batched, channels, device)


def from_unit(x: Tensor, fmt: ImageFormat) -> Image:
    """Convert float32 (B, C, H, W) to ``fmt``: clamped to [0, 1], integers rounded half to even.

    Generated images are rounded to integers only here.
    """
    x = x.clamp(0, 1)
    if fmt.peak is not None:
        x = (x * fmt.peak).round()
    if fmt.channels == "none":
        x = x[0, 0]
    else:
        x = x.movedim(1, -1) if fmt.channels == "last" else x
        x = x if fmt.batched else x[0]
    if fmt.is_torch:
        return x.to(device=fmt.device, dtype=getattr(torch, fmt.dtype)).contiguous()
    if fmt.dtype == "bfloat16":
        raise UserError("dtype bfloat16 is not supported by NumPy; use a torch tensor")
    if fmt.dtype == "uint8":
        x = x.to(torch.uint8)  # convert on the device, to transfer a quarter of the bytes
    return np.ascontiguousarray(x.cpu().numpy().astype(fmt.dtype))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and right by edge replication, so that H and W are multiples of ``multiple``."""
    height, width = x.shape[-2:]
    extra = (0, -width % multiple, 0, -height % multiple)
    return torch.nn.functional.pad(x, extra, mode="replicate") if any(extra) else x
