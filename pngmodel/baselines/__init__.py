"""Noise generators to compare with, fitted per reference; the same face as the learned one.

>>> from pngmodel.baselines import baseline
>>> noisy = baseline("spectrum_matched").generate(clean, reference=(real_noisy, real_clean), seed=1)
"""

from __future__ import annotations

from collections.abc import Callable

from pngmodel.baselines.awgn import Awgn
from pngmodel.baselines.heteroscedastic import Heteroscedastic
from pngmodel.baselines.polyphase_matched import PolyphaseMatched
from pngmodel.baselines.spectrum_matched import SpectrumMatched
from pngmodel.errors import UserError
from pngmodel.interface import NoisyImageGenerator

__all__ = ["BASELINES", "Awgn", "Heteroscedastic", "PolyphaseMatched", "SpectrumMatched", "baseline"]

BASELINES: dict[str, Callable[[], NoisyImageGenerator]] = {
    "awgn": Awgn,
    "heteroscedastic": Heteroscedastic,
    "spectrum_matched": lambda: SpectrumMatched("moments"),
    "spectrum_matched_quantiles": lambda: SpectrumMatched("quantiles"),
    "polyphase_matched": PolyphaseMatched,
}


def baseline(name: str) -> NoisyImageGenerator:
    """The baseline called ``name``.

    Raises:
        UserError: there is none of that name; the message lists them.
    """
    if name not in BASELINES:
        raise UserError(f"baseline {name!r} does not exist; choose one of {', '.join(BASELINES)}")
    return BASELINES[name]()
