"""Training pairs from a corpus."""

from __future__ import annotations

import math

import numpy as np
import torch

from pngmodel.errors import UserError
from tasks.corpus.torch_dataset import CorpusDataset
from tasks.runtime.provenance import content_key
from tasks.stores.corpus_store import Corpus
from tasks.stores.layout import CLEAN, NOISY
from tasks.training.pair_sources import Pair, same_window, to_float


class StoredPairs:
    """The accepted pairs of a corpus, whatever its mode."""

    def __init__(self, url: str, repeats: int | None = None) -> None:
        """``repeats``: only the first so many draws of every clean image; none: all.

        Raises:
            UserError: there is no such corpus, it has fewer draws, or its sources are others than it was made of.
        """
        corpus = Corpus.open(url)
        layout = corpus.layout
        self.url, self._data = url, CorpusDataset(url)
        self.side, self.licence, self.digest = min(layout.height, layout.width), corpus.licence, corpus.digest
        if repeats is not None and repeats > (layout.repeats or 1):
            raise UserError(f"{url}: has {layout.repeats or 1} draws of each clean image, {repeats} are asked for")
        # Rows are draw by draw; side by side the draws of an image are drawn from where the real pair of it would be.
        repeat, image = np.divmod(self._data.pairs, layout.images)
        order = np.lexsort((repeat, image))
        self._data.pairs = self._data.pairs[order][repeat[order] < (repeats or math.inf)]
        self.digest = content_key([corpus.digest, repeats, "image by image"])
        self._peak = float(np.iinfo(layout.dtype).max) if np.dtype(layout.dtype).kind == "u" else 1.0

    def __len__(self) -> int:
        return len(self._data)

    def crop(self, index: int, side: int, g: torch.Generator, seed: int) -> Pair:
        """See :class:`PairSource`."""
        item = self._data[index]
        return same_window(to_float(item[NOISY], self._peak), to_float(item[CLEAN], self._peak), side, g)

    def name(self, index: int) -> str:
        """The row of the corpus's manifest."""
        return f"{self.url} row {self._data.pairs[index]}"
