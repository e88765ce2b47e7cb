"""Training pairs of a corpus."""

from __future__ import annotations

import math

import numpy as np
import torch

from pngmodel.errors import UserError
from tasks.corpus.torch_dataset import CorpusDataset
from tasks.runtime.provenance import content_key
from tasks.stores.corpus_store import Corpus
from tasks.stores.layout import CLEAN, NOISY
from tasks.training.pair_sources import Pair, random_crop, to_float


class StoredPairs:
    """Accepted pairs of a corpus of any mode; a :class:`~tasks.training.pair_sources.PairSource`."""

    def __init__(self, url: str, repeats: int | None = None) -> None:
        """
        Args:
            url: Corpus.
            repeats: Use only the first ``repeats`` samples of every clean image; default all.

        Raises:
            UserError: There is no such corpus, it has fewer samples per clean image, or its sources have changed.
        """
        corpus = Corpus.open(url)
        layout = corpus.layout
        self.url, self._data = url, CorpusDataset(url)
        self.side, self.licence, self.digest = min(layout.height, layout.width), corpus.licence, corpus.digest
        if repeats is not None and repeats > (layout.repeats or 1):
            raise UserError(
                f"{url}: has {layout.repeats or 1} samples per clean image, but repeats is {repeats}; use at most "
                f"{layout.repeats or 1}"
            )
        # Rows are ordered by repeat. Order them by image, so that sampling selects the same images as for real pairs.
        repeat, image = np.divmod(self._data.pairs, layout.images)
        order = np.lexsort((repeat, image))
        self._data.pairs = self._data.pairs[order][repeat[order] < (repeats or math.inf)]
        self.digest = content_key([corpus.digest, repeats, "image by image"])
        self._peak = float(np.iinfo(layout.dtype).max) if np.dtype(layout.dtype).kind == "u" else 1.0

    def __len__(self) -> int:
        return len(self._data)

    def crop(self, index: int, side: int, g: torch.Generator, seed: int) -> Pair:
        """See :class:`~tasks.training.pair_sources.PairSource`."""
        item = self._data[index]
        return random_crop(to_float(item[NOISY], self._peak), to_float(item[CLEAN], self._peak), side, g)

    def name(self, index: int) -> str:
        """Return the row of the pair in the manifest."""
        return f"{self.url} row {self._data.pairs[index]}"
