"""Flow: generate the images of a corpus that was published as a recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.generate_synthetic_corpus import generate_synthetic_corpus
from flows.pipeline import part, pipeline, tail
from tasks.corpus.maintenance import recorded_parameters, require_same_recipe
from tasks.corpus.plan import task_plan_corpus
from tasks.runtime.artifacts import log
from tasks.runtime.clusters import ClusterConfig


class MaterialiseParameters(BaseModel):
    """Parameters of materialise_corpus."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = Field(description="folder, URL or alias of a corpus with mode 'recipe'")
    output: str = Field(description="folder or URL of the corpus")
    mode: Literal["pairs", "noisy"] = Field(
        "pairs", description="pairs: store noisy and clean images; noisy: store only noisy images"
    )
    model: str | None = Field(None, description="location of the model; default: as in the recipe")
    references: str | None = Field(None, description="location of the references; default: as in the recipe")
    clean: str | None = Field(None, description="location of the clean images; default: as in the recipe")
    device: str | None = Field(None, description="cpu, cuda or cuda:N; default: as in the recipe")
    parts: str | None = Field(None, description="'i/n': generate only part i of n, without publishing")
    override_gate: str | None = Field(None, description="reason to publish even if the quality gate fails")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"), description="cluster; one task per shard"
    )


@pipeline(
    "materialise_corpus",
    MaterialiseParameters,
    lambda p: f"materialise {tail(p.output)}: {tail(p.recipe)}{part(p.parts)}",
)
def materialise_corpus(parameters: MaterialiseParameters) -> dict[str, Any]:
    """Run :func:`generate_synthetic_corpus` with the parameters of a recipe.

    ``differs_in`` of the result names differences that may change the least significant bits of the images: versions of
    code or packages, or the device.
    """
    changes = parameters.model_dump(exclude={"recipe", "cluster"})
    corpus_parameters = recorded_parameters(parameters.recipe, **changes, cluster=parameters.cluster)
    differs_in = require_same_recipe(parameters.recipe, task_plan_corpus(corpus_parameters))
    if differs_in:
        log(
            f"the recipe was written with another {' and '.join(differs_in)}; the least significant bits of the images "
            "may differ"
        )
    return generate_synthetic_corpus(corpus_parameters) | {"differs_in": differs_in}
