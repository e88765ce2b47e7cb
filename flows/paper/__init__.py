"""The tables of `reproduce_paper`: each is created by a subflow that returns its page."""

from __future__ import annotations

from flows.paper.denoisers import cross_domain, downstream, scaling, unpaired
from flows.paper.noise import ablation, noise_quality, two_sample_test
from flows.paper.others import classifier, speed
from flows.paper.parameters import ReproduceParameters

__all__ = ["TABLES", "ReproduceParameters"]

TABLES = {
    "noise-quality": noise_quality,
    "downstream": downstream,
    "cross-domain": cross_domain,
    "scaling": scaling,
    "unpaired": unpaired,
    "ablation": ablation,
    "c2st": two_sample_test,
    "classifier": classifier,
    "speed": speed,
}
"""Page name -> subflow."""
