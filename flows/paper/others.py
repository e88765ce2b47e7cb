"""Subflows of `reproduce_paper`: prompts as features, speed."""

from __future__ import annotations

from prefect import flow

from flows.classify_metadata import classify_metadata
from flows.paper import tables
from flows.paper.budget import Budget
from flows.paper.pages import Page
from flows.paper.parameters import ReproduceParameters
from tasks.evaluation.parameters import MetadataParameters
from tasks.evaluation.speed import task_measure_speed


@flow(name="table_classifier", persist_result=False)
def classifier(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Classify the camera from prompts."""
    record = classify_metadata(
        MetadataParameters(
            model=parameters.model,
            references=list(dict.fromkeys([parameters.real, *(test.references for test in parameters.tests)])),
            limit=budget.metadata.limit,
            steps=budget.metadata.steps,
            seeds=budget.metadata.seeds,
            device=parameters.device,
            output=parameters.location("metadata", "record.json"),
            report=parameters.location("metadata", "report.html"),
            cluster=parameters.cluster,
        )
    )
    return tables.classifier_page(record, parameters.facts)


@flow(name="table_speed", persist_result=False)
def speed(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Measure images per second."""
    location = parameters.location("speed.json")
    record = task_measure_speed(parameters.model, parameters.device, budget.speed_repeats, location)
    return tables.speed_page(record, parameters.facts)
