"""Subflows of `reproduce_paper` that train denoisers."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from flows.estimate_clean import estimate_clean
from flows.evaluate_denoiser import evaluate_denoiser
from flows.generate_synthetic_corpus import generate_synthetic_corpus
from flows.paper import tables
from flows.paper.budget import Budget, patch_side, shared_scenes
from flows.paper.pages import Page
from flows.paper.parameters import OURS, ReproduceParameters
from flows.train_denoiser import train_denoiser
from tasks.corpus.parameters import CorpusParameters
from tasks.denoising.parameters import Arm, EstimateParameters, EvaluateDenoiserParameters, TrainDenoiserParameters


def _corpus(
    parameters: ReproduceParameters,
    budget: Budget,
    name: str,
    model: str,
    *,
    references: str | None = None,
    reference_policy: Literal["own", "uniform"] = "own",
) -> str:
    """Generate a corpus from the clean patches of the training split, by default each with its own reference."""
    location = parameters.location("corpora", name)
    generate_synthetic_corpus(
        CorpusParameters(
            model=model,
            references=references or parameters.real,
            split="train",
            clean=parameters.real,
            clean_split="train",
            crop=patch_side(parameters.real),
            reference_policy=reference_policy,
            scale=budget.scale,
            output=location,
            device=parameters.device,
            override_gate="needed for the comparison regardless of the quality gate",
            cluster=parameters.cluster,
        )
    )
    return location


def _denoisers(parameters: ReproduceParameters, budget: Budget, arms: list[Arm]) -> dict[str, Any]:
    """Train and evaluate denoisers; arms already trained for another table are reused."""
    folder = parameters.location("denoisers")
    training = TrainDenoiserParameters(
        config=budget.denoiser,
        output=folder,
        real=[parameters.real],
        arms=arms,
        seeds=budget.seeds,
        steps=budget.denoiser_steps,
        device=parameters.device,
        cluster=parameters.cluster,
    )
    bundles = [result["bundle"] for result in train_denoiser(training)["denoisers"]]
    tests = [test.model_copy(update={"limit": budget.limit}) for test in parameters.tests]
    record: dict[str, Any] = evaluate_denoiser(
        EvaluateDenoiserParameters(
            denoisers=bundles,
            tests=tests,
            device=parameters.device,
            output=parameters.location("denoising", "-".join(arm.name for arm in arms)),
            cluster=parameters.cluster,
        )
    )
    return record


def _data(parameters: ReproduceParameters, budget: Budget) -> list[str]:
    """Return notes on the data for the end of a page."""
    repeats = (
        f"Corpora contain {budget.scale} noise samples per clean image of the training split, unless the arm specifies "
        "another number."
    )
    return [repeats, *shared_scenes(parameters.real, parameters.tests)]


@flow(name="table_downstream", persist_result=False)
def downstream(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Compare denoisers trained only on synthetic pairs with those trained on real pairs."""
    models = parameters.models
    arms = [Arm(name=name, synthetic=_corpus(parameters, budget, name, model)) for name, model in models.items()]
    record = _denoisers(parameters, budget, arms)
    return tables.downstream_page(record, [*models], _data(parameters, budget), parameters.facts)


@flow(name="table_cross_domain", persist_result=False)
def cross_domain(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Train on half real, half synthetic pairs; evaluate on other domains, too."""
    arms = [
        Arm(name=f"{name}-mixed", synthetic=_corpus(parameters, budget, name, model), share=0.5)
        for name, model in parameters.models.items()
    ]
    record = _denoisers(parameters, budget, arms)
    return tables.mixed_page(record, [arm.name for arm in arms], _data(parameters, budget), parameters.facts)


@flow(name="table_scaling", persist_result=False)
def scaling(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Increase the noise samples per clean image at the same number of steps."""
    corpus = _corpus(parameters, budget, OURS, parameters.model)
    arms = [Arm(name=f"{OURS}-x{k}", synthetic=corpus, repeats=k) for k in budget.scales]
    record, repeats = _denoisers(parameters, budget, arms), {arm.name: arm.repeats or 0 for arm in arms}
    return tables.scaling_page(record, repeats, _data(parameters, budget), parameters.facts)


@flow(name="table_unpaired", persist_result=False)
def unpaired(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Compare references with estimated clean images with paired ones; any reference for any clean image."""
    estimated = parameters.location("unpaired", "references")
    estimate_clean(
        EstimateParameters(
            store=parameters.real,
            denoiser=parameters.estimator,
            output=estimated,
            device=parameters.device,
            cluster=parameters.cluster,
        )
    )
    sources = {"png-any": parameters.real, "png-unpaired": estimated}
    arms = [
        Arm(
            name=name,
            synthetic=_corpus(
                parameters, budget, name, parameters.model, references=references, reference_policy="uniform"
            ),
        )
        for name, references in sources.items()
    ]
    record, data = _denoisers(parameters, budget, arms), _data(parameters, budget)
    return tables.unpaired_page(record, [*sources], parameters.estimator, data, parameters.facts)
