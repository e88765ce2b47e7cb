"""The plan of a corpus: every sample is defined before any is generated.

Sample i is a function of the recipe and i, independent of order. A plan computes samples on demand, so its size does
not depend on the number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from pngmodel.baselines import BASELINES
from pngmodel.baselines.trained import FORMAT as TRAINED
from pngmodel.bundle import bundle_config
from pngmodel.errors import UserError
from pngmodel.network.model import Precision
from pngmodel.seeds import derive_seed
from tasks.corpus.clean_index import CleanIndex, CleanQuery, index_clean
from tasks.corpus.crops import Window
from tasks.corpus.parameters import CorpusParameters, CropSettings, ReferencePolicy
from tasks.corpus.reference_policy import ReferenceSelector
from tasks.datasets.clean_images import CleanImage
from tasks.datasets.reference_pairs import SHIPPED, ReferenceSource, open_references, planned_references
from tasks.models.generators import bundle_folder, model_digest
from tasks.models.prompt_bank import KEPT_ENTRIES, Location, Name
from tasks.runtime.parts import parse_parts
from tasks.runtime.provenance import code_version, device_name, packages
from tasks.runtime.steps import step
from tasks.stores.corpus_store import ARRAYS_OF_MODE
from tasks.stores.layout import Layout

_DECIDING = ("torch", "numpy", "pillow", "imagecodecs")  # the last two decode clean images


@dataclass(frozen=True)
class Sample:
    """One pair of a corpus, before it is generated."""

    clean: int
    """Index of the clean image in its plan or shard."""
    y: int
    x: int
    repeat: int
    reference: int
    seed: int


@dataclass(frozen=True)
class Job:
    """What all shards of a corpus share. Small: it is sent to workers with every shard."""

    parameters: CorpusParameters
    layout: Layout
    recipe: dict[str, Any]

    @property
    def generator(self) -> Name:
        """Identifies the generator in any process."""
        return self.parameters.model, self.parameters.device, self.recipe["model"]

    @property
    def references(self) -> Location:
        """URL and digest of the references."""
        return self.parameters.references, self.recipe["references"]

    def sample(self, image: CleanImage, window: Window, repeat: int) -> Sample:
        """The sample that is repeat ``repeat`` of a window of ``image``."""
        p = self.parameters
        identity = (p.seed, image.id, window.y, window.x, repeat)
        reference = selector_of(self).reference(identity, image)
        return Sample(window.image, window.y, window.x, repeat, reference, derive_seed("sample", *identity))


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to make one shard."""

    job: Job
    index: int
    images: tuple[CleanImage, ...]
    windows: tuple[Window, ...]
    """Patches in order; ``Window.image`` counts within ``images``."""

    @property
    def samples(self) -> list[Sample]:
        """Samples of the shard, in order."""
        repeat = self.index // self.job.layout.shards_per_repeat
        return [self.job.sample(self.images[window.image], window, repeat) for window in self.windows]


@dataclass(frozen=True)
class CorpusPlan:
    """Everything about a corpus before it is generated."""

    job: Job
    clean_index: CleanIndex
    licence: str
    prompt_source: str

    @property
    def parameters(self) -> CorpusParameters:
        """The requested parameters."""
        return self.job.parameters

    @property
    def unkept_references(self) -> int | None:
        """Number of references, if their prompts must be extracted and a process cannot cache them all; else None."""
        used = len(selector_of(self.job).usable)
        return used if self.prompt_source == "reference" and used > KEPT_ENTRIES else None

    @property
    def layout(self) -> Layout:
        """Sizes and names of the objects."""
        return self.job.layout

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything but the layout that determines the content."""
        return self.job.recipe

    def sample(self, pair: int) -> Sample:
        """The sample of one pair; ``Sample.clean`` counts into the images of the clean index."""
        repeat, number = divmod(pair, self.layout.images)
        window = self.clean_index.windows[number]
        return self.job.sample(self.clean_index.source.images[window.image], window, repeat)

    def task(self, index: int) -> ShardTask:
        """The task of one shard."""
        rows, images = self.layout.rows(index), self.clean_index.source.images
        windows = [self.clean_index.windows[pair % self.layout.images] for pair in rows]
        numbers = {k: position for position, k in enumerate(dict.fromkeys(window.image for window in windows))}
        local = tuple(Window(numbers[window.image], window.y, window.x) for window in windows)
        return ShardTask(self.job, index, tuple(images[k] for k in numbers), local)

    def tasks(self, indices: Iterable[int] | None = None) -> Iterator[ShardTask]:
        """The tasks of these shards, or of all."""
        return map(self.task, range(self.layout.shards) if indices is None else indices)

    @cached_property
    def mine(self) -> Sequence[int]:
        """Indices of the shards that this run generates: all, or those of ``parts``."""
        return part_of(self.parameters.parts, self.layout.shards)


def part_of(parts: str | None, shards: int) -> range:
    """Shards of part i of n (``"i/n"``), every n-th one, so that parts take equally long.

    Raises:
        UserError: ``parts`` is invalid.
    """
    part, of = parse_parts(parts) if parts is not None else (1, 1)
    return range(part - 1, shards, of)


@lru_cache(maxsize=4)
def _selector(
    references: str, digest: str, reference_policy: ReferencePolicy, split: str | None, weights: tuple[Any, ...]
) -> ReferenceSelector:
    return ReferenceSelector(planned_references(references, digest), reference_policy, split, dict(weights) or None)


def selector_of(job: Job) -> ReferenceSelector:
    """The reference selector of a job, cached per process."""
    p = job.parameters
    weights = tuple(sorted((p.weights or {}).items()))
    return _selector(*job.references, p.reference_policy, p.split, weights)


def plan_corpus(parameters: CorpusParameters) -> CorpusPlan:
    """Plan a corpus.

    Raises:
        UserError: a source or the model cannot be used, or no clean image is large enough for a patch.
    """
    Precision.best(parameters.device)  # before anything is written
    part_of(parameters.parts, 1)
    references = open_references(parameters.references)
    model = model_digest(parameters.model)
    _refuse_other_model(parameters, references, model)
    policy = ReferenceSelector(references, parameters.reference_policy, parameters.split, parameters.weights)
    cropping = CropSettings(**parameters.model_dump(include=set(CropSettings.model_fields)))
    query = CleanQuery(
        clean=parameters.clean,
        cropping=cropping,
        seed=parameters.seed,
        split=parameters.clean_split,
        licence=parameters.clean_licence,
        min_jpeg_quality=parameters.min_jpeg_quality,
    )
    found = index_clean(query, parameters.output, parameters.cluster)
    first = found.source.images[0]
    layout = Layout(
        pairs=len(found.windows) * parameters.scale,
        shard=parameters.shard,
        channels=first.channels,
        height=parameters.crop,
        width=parameters.crop,
        dtype=first.dtype,
        arrays=ARRAYS_OF_MODE[parameters.mode],
        repeats=parameters.scale,
    )
    recipe = {
        "model": model,
        "references": references.digest,
        "clean": found.source.digest,
        "code": code_version(),
        "packages": {name: packages()[name] for name in _DECIDING},
        "device": device_name(parameters.device),
        **parameters.identity_settings(),
    }
    if parameters.reference_policy in ("own", "camera"):  # check every image before anything is written
        for image in found.source.images:
            policy.reference((), image)
    licences = {image.licence for image in found.source.images}
    licences |= {references.references[k].licence for k in policy.usable}
    return CorpusPlan(Job(parameters, layout, recipe), found, "; ".join(sorted(licences)), prompt_source(references))


def is_baseline(parameters: CorpusParameters) -> bool:
    """Whether the noise model is a baseline. The gate does not compare the noise of baselines with real noise."""
    if parameters.model in BASELINES:
        return True
    return bundle_config(bundle_folder(parameters.model)).get("format") == TRAINED


def evaluated_pairs(plan: CorpusPlan) -> dict[str, Any]:
    """Real pairs for the metrics of a corpus: its references, or the shipped pairs if it uses a prompt bank."""
    if plan.prompt_source == "bank":
        return {"references": SHIPPED, "split": None}
    return {"references": plan.parameters.references, "split": plan.parameters.split}


def prompt_source(references: ReferenceSource) -> str:
    """Manifest column: ``bank`` if prompts come from a prompt bank, ``reference`` if they are extracted from pairs."""
    return "bank" if references.kept else "reference"


def _refuse_other_model(parameters: CorpusParameters, references: ReferenceSource, model: str) -> None:
    if references.model not in (None, model):
        raise UserError(
            f"{parameters.references}: this prompt bank was made by the model with digest {references.model:.12}, but "
            f"{parameters.model!r} has {model:.12}; give that model, or make a bank with `pngnoise prompts "
            f"--model {parameters.model}`"
        )


task_plan_corpus = step("plan_corpus")(plan_corpus)
