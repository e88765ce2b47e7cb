"""Flow: train a noise model, or a baseline to compare with. Rerun with the same parameters to resume."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from flows.pipeline import pipeline, tail
from tasks.corpus.publish import HEADLINE
from tasks.evaluation.noise import task_evaluate_noise
from tasks.evaluation.parameters import EvaluateParameters
from tasks.models.events import TRAINED, announce_model, model_kind
from tasks.models.registry import task_add_trained
from tasks.reports.results import Evaluation
from tasks.reports.tables import examples_picture, markdown_table
from tasks.runtime.artifacts import publish_markdown, publish_picture, table
from tasks.runtime.progress import reporter
from tasks.training.parameters import TrainParameters
from tasks.training.run import TrainingFile
from tasks.training.stages import load_training, report_step, task_publish_bundle, task_train_stages, task_write_card

_EVALUATED_PAIRS = 16


def training_config(parameters: TrainParameters) -> TrainingFile:
    """The training configuration, with the stores of the parameters."""
    config = load_training(parameters.config)
    if parameters.stores:
        config.use_stores(parameters.stores)
    return config


def _command(parameters: TrainParameters) -> str:
    """The command that repeats this training."""
    words = [f"pngnoise train {parameters.config} --output {parameters.output}"]
    words += [f"--stores {' '.join(parameters.stores)}"] if parameters.stores else []
    words += [f"--device {parameters.device}"] if parameters.device != "cpu" else []
    words += [f"--devices {parameters.devices}"] if parameters.devices > 1 else []
    return " ".join(words)


def _run_name(p: TrainParameters) -> str:
    data = ", ".join(map(tail, p.stores)) or "configured stores"
    return f"train {tail(p.output)}: {tail(p.config, 1)} on {data}"


@pipeline("train_noise_model", TrainParameters, _run_name)
def train_noise_model(parameters: TrainParameters) -> dict[str, Any]:
    """Train all stages (PAE and P-DiT, or the stage of a baseline) and publish the bundle.

    Returns:
        Location, digest and steps. If ``finished`` is false, the time budget ended first: rerun to resume.
    """
    config, output, devices = training_config(parameters), Path(parameters.output), parameters.placement
    outcomes = task_train_stages(config, output, devices, parameters.config, parameters.max_minutes, report_step)
    training = config.create_run(output, device=devices.device, source=parameters.config)
    result: dict[str, Any] = {"output": parameters.output}
    result |= {f"{stage}_steps": outcomes[stage].step if stage in outcomes else 0 for stage in training.stages}
    result["finished"] = training.finished(outcomes)
    if result["finished"]:
        result |= task_publish_bundle(training, _command(parameters))
        held_out = [s.url for s in training.stores if "validation" in s.table.column("split").to_pylist()]
        evaluations = [
            task_evaluate_noise(
                EvaluateParameters(
                    model=result["bundle"],
                    references=url,
                    split="validation",
                    limit=_EVALUATED_PAIRS,
                    device=devices.device,
                    output=str(output / f"validation-{index}.json"),
                ),
                reporter("evaluate", "pairs"),
            )
            for index, url in enumerate(held_out)
        ]
        task_write_card(Path(result["bundle"]), evaluations)
        if parameters.register_as is not None:
            note = f"{parameters.config}, {parameters.output}"
            result["model"] = task_add_trained(result["bundle"], parameters.register_as, note)
            announce_model(TRAINED, model_kind(result["bundle"]), model=result["model"], digest=result["digest"])
        _publish_metrics(evaluations)
    publish_markdown("training", lambda: f"# Training\n\n{table(result)}")
    return result


def _publish_metrics(evaluations: list[Evaluation]) -> None:
    """Publish metrics of the new model and the baselines, with a table and a picture per store."""
    for index, evaluation in enumerate(evaluations):
        publish_markdown(f"training-metrics-{index}", partial(_metrics_page, evaluation.record))
        if evaluation.examples:
            publish_picture(f"training-examples-{index}", partial(examples_picture, evaluation), "real and synthetic")


def _metrics_page(record: dict[str, Any]) -> str:
    head = f"# {record['protocol']}, {', '.join(record['cameras'])}"
    return f"{head}\n\n{markdown_table(record['metrics'], HEADLINE)}"
