"""Templates of HTML pages and Markdown cards, and images embedded as data URIs."""

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
mpl.rcParams["text.parse_math"] = False  # dollar signs in names are literal
LARGEST_SMALL = 180_000
"""Maximum length of a data URI, in characters, that Prefect's UI displays."""
_SMALL_DPI, _SCALES = 72, (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # noise hardly compresses, so large plots need scaling

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _escaped(value: object) -> object:
    """Escape a template value for Markdown, except numbers and values that are already ``Markup``."""
    return value if isinstance(value, (Markup, int, float)) else plain(value)


TEXTS = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    finalize=_escaped,
)
"""Templates of Markdown cards. All values except ``Markup`` are escaped."""
TEXTS.filters["code"] = lambda value: Markup(code(value))
TEXTS.filters["line"] = lambda value: Markup(" ".join(str(value).split()))


def data_uri(figure: Figure, *, small: bool = False) -> str:
    """Encode a matplotlib figure as a data URI.

    Args:
        figure: The figure.
        small: Encode a JPEG below the 200 kB that Prefect's UI displays, scaled down if needed. Default: a PNG.
    """
    with warnings.catch_warnings():
        # matplotlib draws boxes for glyphs that its font lacks; the text of the page still shows them
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        if not small:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
            return _uri("png", buffer)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="rgba", dpi=_SMALL_DPI)
    width, height = (int(inches * _SMALL_DPI) for inches in figure.get_size_inches())
    rendered = Image.frombytes("RGBA", (width, height), buffer.getvalue()).convert("RGB")
    for scale in _SCALES:  # rendering takes much longer than resizing
        buffer = io.BytesIO()
        smaller = rendered.resize((round(scale * width), round(scale * height)), Image.Resampling.LANCZOS)
        smaller.save(buffer, "JPEG", quality=75)
        if len(uri := _uri("jpeg", buffer)) < LARGEST_SMALL:
            break
    return uri


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convert an image (C, H, W) to (H, W, 3) in [0, 1], the layout of matplotlib's ``imshow``."""
    rgb = np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image
    return np.moveaxis(np.clip(rgb, 0, 1), 0, -1)
