"""Subflows of `reproduce_paper` that evaluate noise."""

from __future__ import annotations

from prefect import flow

from flows.evaluate_c2st import evaluate_c2st
from flows.evaluate_noise import evaluate_noise
from flows.paper import tables
from flows.paper.budget import Budget, shared_scenes, write_variants
from flows.paper.pages import Page
from flows.paper.parameters import ReproduceParameters
from flows.train_noise_model import train_noise_model
from tasks.evaluation.parameters import C2stParameters, EvaluateParameters
from tasks.training.parameters import TrainParameters


@flow(name="table_noise_quality", persist_result=False)
def noise_quality(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Evaluate noise metrics by camera."""
    records = {
        test.name: evaluate_noise(
            EvaluateParameters(
                model=parameters.model,
                compare=parameters.compare,
                references=test.references,
                split=test.split,
                camera=test.camera,
                limit=budget.noise_limit,
                device=parameters.device,
                output=parameters.location("noise", f"{test.name}.json"),
                report=parameters.location("noise", f"{test.name}.html"),
            )
        )
        for test in parameters.tests
    }
    return tables.noise_page(records, shared_scenes(parameters.real, parameters.tests), parameters.facts)


@flow(name="table_ablation", persist_result=False)
def ablation(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Train and evaluate variants of the noise model with some components removed."""
    records, test = {}, parameters.tests[0]
    for name, config in write_variants(budget.ablation, parameters.location("ablation")).items():
        folder = config.removesuffix(".yaml")
        train_noise_model(
            TrainParameters(config=config, output=folder, stores=[parameters.real], device=parameters.device)
        )
        records[name] = evaluate_noise(
            EvaluateParameters(
                model=f"{folder}/bundle",
                references=test.references,
                split=test.split,
                camera=test.camera,
                limit=budget.ablation.limit,
                device=parameters.device,
                output=f"{folder}/noise.json",
            )
        )
    steps = f"{budget.ablation.pae_steps} + {budget.ablation.pdit_steps} steps from {budget.ablation.config}"
    return tables.ablation_page(records, steps, parameters.facts)


@flow(name="table_c2st", persist_result=False)
def two_sample_test(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Train classifiers to distinguish generated from real noise."""
    test = parameters.tests[0]
    records = {
        f"{test.name}, averaged {average} x {average}": evaluate_c2st(
            C2stParameters(
                model=parameters.model,
                compare=parameters.compare,
                references=test.references,
                split=None if test.split == "validation" else test.split,
                camera=test.camera,
                hold_out="split" if test.split == "validation" else "image",
                limit=budget.c2st.limit,
                steps=budget.c2st.steps,
                seeds=budget.c2st.seeds,
                average=average,
                device=parameters.device,
                output=parameters.location("c2st", f"average-{average}.json"),
                cluster=parameters.cluster,
            )
        )
        for average in budget.c2st.averages
    }
    return tables.c2st_page(records, shared_scenes(parameters.real, [test]), parameters.facts)
