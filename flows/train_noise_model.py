"""Flow: train a noise model. Run the same parameters again to resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from tasks.artifacts import publish_markdown, table
from tasks.configuration import load_yaml
from tasks.evaluation import EvaluateParameters, task_evaluate_noise
from tasks.progress import reporter
from tasks.training import (
    TrainingConfig,
    TrainingRun,
    report_step,
    task_publish_bundle,
    task_train_autoencoder,
    task_train_transformer,
    task_training_pairs,
    task_write_card,
)

_EVALUATED_PAIRS = 16


class TrainParameters(BaseModel):
    """What to train and where."""

    model_config = ConfigDict(extra="forbid")

    config: str = Field("configs/models/tiny.yaml", description="training configuration, a file of configs/models/")
    output: str = Field("runs/tiny", description="local folder for checkpoints, logs and the bundle")
    stores: list[str] = Field(default_factory=list, description="patch stores to use instead of the configuration's")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    max_minutes: float | None = Field(None, gt=0, description="stop resumably after this many minutes of a stage")


@flow(name="train_noise_model", flow_run_name="train-{parameters.output}", persist_result=False)
def train_noise_model(parameters: TrainParameters) -> dict[str, Any]:
    """Train PAE and P-DiT, publish the bundle. Returns its place, digest and steps; ``finished`` False
    means that the time budget ended first: run the same command again."""
    config = load_yaml(parameters.config, TrainingConfig)
    if parameters.stores:
        # The configuration's shares name its own datasets; other stores are drawn from by their size.
        config.data = config.data.model_copy(update={"stores": parameters.stores, "weights": {}})
    training = TrainingRun(config, Path(parameters.output), device=parameters.device, source=parameters.config)
    task_training_pairs(training, reporter("whitening", "pairs"))
    limits: dict[str, Any] = {"max_minutes": parameters.max_minutes, "report": report_step}
    pae = task_train_autoencoder(training, **limits)
    result: dict[str, Any] = {"output": parameters.output, "pae_steps": pae.step, "pdit_steps": 0, "finished": False}
    if pae.finished:
        pdit = task_train_transformer(training, **limits)
        result["pdit_steps"] = pdit.step
        if pdit.finished:
            command = " ".join(
                [f"pngnoise train {parameters.config} --output {parameters.output}"]
                + [f"--store {url}" for url in parameters.stores]
                + ([f"--device {parameters.device}"] if parameters.device != "cpu" else [])
            )
            result |= task_publish_bundle(training, pae, pdit, command) | {"finished": True}
            held_out = [s.url for s in training.stores if "validation" in s.table.column("split").to_pylist()]
            evaluations = [
                task_evaluate_noise(
                    EvaluateParameters(
                        model=result["bundle"],
                        references=url,
                        split="validation",
                        limit=_EVALUATED_PAIRS,
                        device=parameters.device,
                    ),
                    reporter("evaluate", "pairs"),
                )
                for url in held_out
            ]
            task_write_card(Path(result["bundle"]), evaluations)
    publish_markdown("training", f"# Training\n\n{table(result)}")
    return result
