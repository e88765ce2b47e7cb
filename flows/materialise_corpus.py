"""Flow: make the images of a corpus of recipes."""

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

    ``differs_in`` names what may change last bits of the images: another version of the code, packages or device.
    """
    changes = parameters.model_dump(exclude={"recipe", "cluster"})
    asked = recorded_parameters(parameters.recipe, **changes, cluster=parameters.cluster)
    differs_in = require_same_recipe(parameters.recipe, task_plan_corpus(asked))
    if differs_in:
        log(f"the recipe was written with another {' and '.join(differs_in)}: last bits may differ from what was meant")
    return generate_synthetic_corpus(asked) | {"differs_in": differs_in}
