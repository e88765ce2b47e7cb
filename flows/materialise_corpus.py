"""Flow: make the images of a corpus of recipes."""

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
    """Which recipes, and where the images go."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = Field(description="folder, URL or alias of a corpus of recipes")
    output: str = Field(description="folder or URL of the corpus")
    mode: Literal["pairs", "noisy"] = Field("pairs", description="what is stored of the pairs")
    model: str | None = Field(None, description="where the model lies now, if elsewhere")
    references: str | None = Field(None, description="where the references lie now, if elsewhere")
    clean: str | None = Field(None, description="where the clean images lie now, if elsewhere")
    device: str | None = Field(None, description="cpu, cuda or cuda:N; default: the recipe's")
    parts: str | None = Field(None, description="i/n: make part i of n and do not publish")
    override_gate: str | None = Field(None, description="publish although the gate fails, for this reason")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"), description="where shards are made"
    )


@pipeline(
    "materialise_corpus",
    MaterialiseParameters,
    lambda p: f"materialise {tail(p.output)}: {tail(p.recipe)}{part(p.parts)}",
)
def materialise_corpus(parameters: MaterialiseParameters) -> dict[str, Any]:
    """As :func:`generate_synthetic_corpus`, of what a corpus of recipes says.

    ``differs_in`` names what may change last bits of the images: another version of the code, packages or device.
    """
    changes = parameters.model_dump(exclude={"recipe", "cluster"})
    asked = recorded_parameters(parameters.recipe, **changes, cluster=parameters.cluster)
    differs_in = require_same_recipe(parameters.recipe, task_plan_corpus(asked))
    if differs_in:
        log(f"the recipe was written with another {' and '.join(differs_in)}: last bits may differ from what was meant")
    return generate_synthetic_corpus(asked) | {"differs_in": differs_in}
