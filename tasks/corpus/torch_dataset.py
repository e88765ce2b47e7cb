"""Corpora for PyTorch: a map-style dataset of pairs that are stored, or generated on demand.

pairs = CorpusDataset("s3://bucket/corpora/latest")
loader = DataLoader(pairs, 16, shuffle=True, num_workers=4, multiprocessing_context="spawn")

Of a corpus of noisy images the clean halves are cut from their sources; of one of recipes the noisy ones are made too,
equal to those that ``pngnoise materialise`` stores, on the same kind of device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pngmodel.errors import IntegrityError
from tasks.corpus.maintenance import recorded_parameters, require_same_recipe
from tasks.corpus.plan import CorpusPlan, plan_corpus
from tasks.corpus.regenerate import clean_of, noisy_of
from tasks.stores.corpus_store import Corpus
from tasks.stores.layout import CLEAN, NOISY
from tasks.stores.shard_file import Pixels

Item = dict[str, torch.Tensor]


class CorpusDataset(Dataset[Item]):
    """Pairs of a published corpus as (C, H, W) tensors of digital numbers: uint8, uint16 or float32.

    An item has the keys ``clean``, ``noisy`` and ``index``, the pair's row in the manifest. Only what is picked travels
    to workers; each opens the corpus, and where images are made the model, when it first reads.
    """

    def __init__(self, url: str, *, accepted_only: bool = True, **locations: str | None) -> None:
        """
        Args:
            url: place of the corpus, or an alias.
            accepted_only: leave out what the quality gate rejected.
            places: ``clean``, ``references``, ``model`` or ``device``, where they are others than when it was made.

        Raises:
            UserError: no such corpus, or its sources are not those it was made of.
        """
        corpus = Corpus.open(url)
        self.url, self._locations, self._digest = corpus.url, locations, corpus.digest
        self._corpus: Corpus | None = corpus
        self._plan: CorpusPlan | None = None
        if accepted_only and corpus.stored:
            accepted = np.concatenate(
                [part.column("accepted").to_numpy(zero_copy_only=False) for part in corpus.manifest()]
            )
            self.pairs = np.flatnonzero(accepted)
        else:
            self.pairs = np.arange(len(corpus))
        if corpus.record.mode != "pairs":
            self._planned(corpus)  # report problems of the sources here, not in a worker

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_corpus": None, "_plan": None}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: int) -> Item:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Item]:
        """Several items; object storage serves them in parallel."""
        corpus = self._opened()
        numbers = [int(self.pairs[position]) for position in positions]
        stored = corpus.layout.arrays if corpus.stored else ()
        images = corpus.read_many(numbers, stored) if stored else {}
        clean = images[CLEAN] if CLEAN in images else [clean_of(self._planned(corpus), number) for number in numbers]
        noisy = images[NOISY] if NOISY in images else self._made(corpus, numbers, clean)
        return [
            {CLEAN: torch.from_numpy(c), NOISY: torch.from_numpy(n), "index": torch.tensor(number)}
            for c, n, number in zip(clean, noisy, numbers, strict=True)
        ]

    def _made(self, corpus: Corpus, numbers: list[int], clean: list[Pixels]) -> list[Pixels]:
        plan = self._planned(corpus)
        return [noisy_of(plan, number, image) for number, image in zip(numbers, clean, strict=True)]

    def _opened(self) -> Corpus:
        corpus = self._corpus or Corpus.open(self.url)
        if corpus.digest != self._digest:
            raise IntegrityError(f"{self.url}: changed since it was opened; start the training again")
        self._corpus = corpus
        return corpus

    def _planned(self, corpus: Corpus) -> CorpusPlan:
        if self._plan is None:
            plan = plan_corpus(recorded_parameters(self.url, **self._locations))
            require_same_recipe(self.url, plan)
            self._plan = plan
        return self._plan
