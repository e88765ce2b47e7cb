"""Images in and out: every supported dtype and layout comes back as it was given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pngmodel.errors import UserError
from pngmodel.images import from_unit, pad_to_multiple, to_unit

DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
LAYOUTS = {
    "grey": lambda h, w, c, b: (h, w),
    "last": lambda h, w, c, b: (h, w, c),
    "first": lambda h, w, c, b: (c, h, w),
    "batch last": lambda h, w, c, b: (b, h, w, c),
    "batch first": lambda h, w, c, b: (b, c, h, w),
}


def random_image(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("uint"):
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    return rng.random(shape).astype(dtype)


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, str]:
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    # Sides from 4 on, so that no side looks like a channel count.
    h, w = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    shape = LAYOUTS[layout](h, w, draw(st.sampled_from([1, 3])), draw(st.integers(1, 3)))
    return random_image(shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99))), layout


@given(images(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_round_trip(case: tuple[np.ndarray, str], as_torch: bool) -> None:
    image, _ = case
    given_image = torch.from_numpy(image) if as_torch else image
    x, fmt = to_unit(given_image)
    assert x.dtype == torch.float32
    assert x.ndim == 4
    assert x.shape[1] in (1, 3)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    back = from_unit(x, fmt)
    assert type(back) is type(given_image)
    assert back.dtype == given_image.dtype
    assert tuple(back.shape) == tuple(given_image.shape)
    found = np.asarray(back)
    if image.dtype == np.float64:
        np.testing.assert_allclose(found, image, atol=1e-7)  # float32 inside
    else:
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_axes(layout: str) -> None:
    image = random_image(LAYOUTS[layout](5, 7, 3, 2), "uint8")
    x, _ = to_unit(image)
    expected = image.astype(np.float64) / 255
    expected = {
        "grey": lambda a: a[None, None],
        "last": lambda a: a.transpose(2, 0, 1)[None],
        "first": lambda a: a[None],
        "batch last": lambda a: a.transpose(0, 3, 1, 2),
        "batch first": lambda a: a,
    }[layout](expected)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_every_integer_level_survives(dtype: str, library: object) -> None:
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 256 if dtype == "uint16" else 16)
    np.testing.assert_array_equal(np.asarray(from_unit(*to_unit(library(levels)))), levels)


def test_bfloat16_tensor_round_trip() -> None:
    image = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    back = from_unit(*to_unit(image))
    assert back.dtype == torch.bfloat16
    assert torch.equal(back, image)


def test_views_and_reversed_arrays_are_taken() -> None:
    image = random_image((8, 10, 3), "float32")
    for view in (image[::-1], image[:, ::2], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(from_unit(*to_unit(view)), view)


def test_the_callers_image_is_not_shared() -> None:
    image = random_image((6, 6, 3), "float32")
    before = image.copy()
    x, _ = to_unit(image)
    x.zero_()
    np.testing.assert_array_equal(image, before)
    tensor = torch.from_numpy(before.copy()).movedim(-1, 0).contiguous()
    x, _ = to_unit(tensor)
    x.zero_()
    assert float(tensor.max()) > 0


def test_writing_clamps_and_rounds_to_the_nearest_level() -> None:
    _, fmt = to_unit(np.zeros((1, 6), np.uint8))
    x = torch.tensor([-0.2, 0.0, 99.4 / 255, 99.6 / 255, 1.0, 1.7]).reshape(1, 1, 1, 6)
    assert from_unit(x, fmt).ravel().tolist() == [0, 0, 99, 100, 255, 255]
    _, fmt = to_unit(np.zeros((1, 6), np.float32))
    np.testing.assert_allclose(from_unit(x, fmt).ravel(), [0, 0, 99.4 / 255, 99.6 / 255, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([[0.1, 0.2]], "photo: type list is not supported; use a NumPy array or torch tensor"),
        (np.zeros((4, 4), np.int64), "photo: dtype int64 is not supported; use uint8, uint16 or float"),
        (np.zeros((4, 4), bool), "photo: dtype bool"),
        (torch.zeros(4, 4, dtype=torch.int8), "photo: dtype int8"),
        (np.zeros(4, np.uint8), r"photo: shape \(4,\) is not an image"),
        (np.zeros((4, 4, 4), np.uint8), r"photo: shape \(4, 4, 4\) is not an image"),
        (np.zeros((1, 1, 4, 4, 3), np.uint8), "photo: shape .* is not an image"),
        (np.zeros((0, 5), np.uint8), "photo: the image is empty"),
        (np.zeros((0, 5, 3), np.float32), "photo: the image is empty"),
        (torch.zeros(0, 3, 5, 5), "photo: the image is empty"),
        (np.full((4, 4), np.nan, np.float32), "photo: has NaN or infinite"),
        (torch.tensor([[0.0, float("inf")]]), "photo: has NaN or infinite"),
        (np.array([[0.0, 255.0]], np.float64), "photo: .*got 0 to 255; divide by the white level"),
        (torch.tensor([[-0.25, 0.5]]), "photo: .*got -0.25 to 0.5"),
    ],
)
def test_refusals_name_the_image_and_the_problem(image: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_unit(image, "photo")  # type: ignore[arg-type]


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 8]))
@settings(max_examples=40, deadline=None)
def test_padding_keeps_the_image_and_repeats_its_border(height: int, width: int, multiple: int) -> None:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    padded = pad_to_multiple(x, multiple)
    rows, columns = padded.shape[-2:]
    assert rows % multiple == columns % multiple == 0
    assert rows - height < multiple
    assert columns - width < multiple
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, rows - height), (0, columns - width)), mode="edge")
    np.testing.assert_array_equal(padded.numpy(), expected)
