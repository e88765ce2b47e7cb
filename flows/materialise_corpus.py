"""Flow: generate the images of a corpus that was published as a recipe."""

from __future__ import annotations

from typing import Any

from flows.generate_synthetic_corpus import generate_synthetic_corpus
from flows.pipeline import part, pipeline, tail
from tasks.corpus.maintenance import recorded_parameters, require_same_recipe
from tasks.corpus.parameters import MaterialiseParameters
from tasks.corpus.plan import task_plan_corpus
from tasks.runtime.artifacts import log


@pipeline(
    "materialise_corpus",
    MaterialiseParameters,
    lambda p: f"materialise {tail(p.output)}: {tail(p.recipe)}{part(p.parts)}",
)
def materialise_corpus(parameters: MaterialiseParameters) -> dict[str, Any]:
    """Generate the corpus that a corpus of recipes describes, as :func:`generate_synthetic_corpus`.

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
