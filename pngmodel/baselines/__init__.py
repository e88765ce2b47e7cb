"""Baseline noise generators, fitted to each reference, with the same interface as the learned model.

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
    """Create the baseline ``name``.

    Raises:
        UserError: There is no such baseline; lists the names.
    """
    if name not in BASELINES:
        raise UserError(f"baseline {name!r} does not exist; choose one of {', '.join(BASELINES)}")
    return BASELINES[name]()
