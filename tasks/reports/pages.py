"""What every page is made with: templates, and pictures that stand in the page itself."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tasks.reports.markdown import code, plain

mpl.use("Agg")
mpl.rcParams["text.parse_math"] = False  # a dollar in a name is a dollar
LARGEST_SMALL = 180_000
"""Characters of a data URI that Prefect's UI still shows."""
_SMALL_DPI, _SCALES = 72, (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # noise hardly compresses

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _text(value: object) -> object:
    """What stands where a card names a value: text, unless it is markdown already."""
    return value if isinstance(value, (Markup, int, float)) else plain(value)


TEXTS = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    finalize=_text,
)
"""Templates of cards, which are markdown: values in them are text, ``Markup`` excepted."""
TEXTS.filters["code"] = lambda value: Markup(code(value))
TEXTS.filters["line"] = lambda value: Markup(" ".join(str(value).split()))


def data_uri(figure: Figure, *, small: bool = False) -> str:
    """A figure as a data URI, so that a page opens without a network.

    ``small``: a JPEG that Prefect's UI shows in an artifact, which has to be less than 200 kB; else a PNG.
    """
    with warnings.catch_warnings():
        # names in scripts that the font lacks are drawn as boxes; the page's text has them
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        if not small:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
            return _uri("png", buffer)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="rgba", dpi=_SMALL_DPI)
    width, height = (int(inches * _SMALL_DPI) for inches in figure.get_size_inches())
    drawn = Image.frombytes("RGBA", (width, height), buffer.getvalue()).convert("RGB")
    for scale in _SCALES:  # drawing takes much longer than making it smaller
        buffer = io.BytesIO()
        smaller = drawn.resize((round(scale * width), round(scale * height)), Image.Resampling.LANCZOS)
        smaller.save(buffer, "JPEG", quality=75)
        if len(uri := _uri("jpeg", buffer)) < LARGEST_SMALL:
            break
    return uri


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) in [0, 1] as matplotlib's imshow takes it."""
    rgb = np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image
    return np.moveaxis(np.clip(rgb, 0, 1), 0, -1)
