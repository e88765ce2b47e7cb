"""Subflows of `reproduce_paper`: each makes one table and returns its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from flows.classify_metadata import classify_metadata
from flows.estimate_clean import estimate_clean
from flows.evaluate_c2st import evaluate_c2st
from flows.evaluate_denoiser import evaluate_denoiser
from flows.evaluate_noise import evaluate_noise
from flows.generate_synthetic_corpus import generate_synthetic_corpus
from flows.train_denoiser import TrainDenoiserParameters, train_denoiser
from flows.train_noise_model import TrainParameters, train_noise_model
from tasks.c2st import C2stParameters
from tasks.clusters import ClusterConfig
from tasks.denoiserevaluation import EvaluateDenoiserParameters
from tasks.denoisermeasure import TestSet
from tasks.denoisertraining import Arm
from tasks.devices import Devices
from tasks.evaluation import EvaluateParameters
from tasks.metadata import MetadataParameters
from tasks.paper import tables
from tasks.paper.budget import Budget, patch_side, shared_scenes, write_variants
from tasks.paper.pages import Page
from tasks.paper.speed import task_measure_speed
from tasks.provenance import commit, device_name
from tasks.synthesis import CorpusParameters
from tasks.unpaired import EstimateParameters

OURS = "png"


class ReproduceParameters(BaseModel):
    """Which tables, on which data."""

    model_config = ConfigDict(extra="forbid")

    real: str = Field(description="patch store of real pairs; its split 'train' is trained on")
    tests: list[TestSet] = Field(min_length=1, description="real pairs to measure on, the own domain first")
    budget: str = Field("smoke", description="smoke, small, full, or a YAML file")
    output: str = Field("runs/paper", description="local folder; the pages are in its folder pages/")
    model: str = Field("shipped", description="'shipped' or a bundle")
    baselines: dict[str, str] = Field(
        default={name: name for name in ("awgn", "heteroscedastic", "spectrum_matched")},
        description="name -> generator (a baseline's name or a bundle) to train denoisers on, too",
    )
    also: list[str] = Field(default_factory=list, description="bundles of trained baselines, compared as noise")
    estimator: str = Field("nlm", description="denoiser that estimates clean images where there are no pairs")
    tables: list[str] = Field(default_factory=list, description="only these; default all")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    cluster: ClusterConfig = Field(default_factory=lambda: ClusterConfig(kind="inline"))

    def place(self, *names: str) -> str:
        """A place below the output."""
        return "/".join([self.output.rstrip("/"), *names])

    @property
    def facts(self) -> Mapping[str, str]:
        """What stands below every page."""
        return {"page made at commit": commit(), "device": device_name(self.device), "model": self.model}

    @property
    def models(self) -> dict[str, str]:
        """Generators that denoisers are trained on, by arm."""
        return {OURS: self.model} | self.baselines


@flow(name="table_noise_quality", persist_result=False)
def noise_quality(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Noise metrics by camera."""
    records = {
        test.name: evaluate_noise(
            EvaluateParameters(
                model=parameters.model,
                also=parameters.also,
                references=test.references,
                split=test.split,
                camera=test.camera,
                limit=budget.noise_limit,
                device=parameters.device,
                output=parameters.place("noise", f"{test.name}.json"),
                report=parameters.place("noise", f"{test.name}.html"),
            )
        )
        for test in parameters.tests
    }
    return tables.noise_page(records, shared_scenes(parameters.real, parameters.tests), parameters.facts)


def _corpus(
    parameters: ReproduceParameters,
    budget: Budget,
    name: str,
    model: str,
    *,
    references: str | None = None,
    assign: Literal["own", "uniform"] = "own",
) -> str:
    """A corpus on the clean patches of the training split, by default with noise like each one's own."""
    place = parameters.place("corpora", name)
    generate_synthetic_corpus(
        CorpusParameters(
            model=model,
            references=references or parameters.real,
            split="train",
            clean=parameters.real,
            clean_split="train",
            crop=patch_side(parameters.real),
            assign=assign,
            scale=budget.scale,
            output=place,
            device=parameters.device,
            override_gate="compared with what it is measured against, whatever the gate says",
            cluster=parameters.cluster,
        )
    )
    return place


def _denoisers(parameters: ReproduceParameters, budget: Budget, arms: list[Arm]) -> dict[str, Any]:
    """Train and measure; arms that were trained for another table are not trained again."""
    folder = parameters.place("denoisers")
    training = TrainDenoiserParameters(
        config=budget.denoiser,
        output=folder,
        real=[parameters.real],
        arms=arms,
        seeds=budget.seeds,
        steps=budget.denoiser_steps,
        devices=Devices(device=parameters.device),
        cluster=parameters.cluster,
    )
    bundles = [result["bundle"] for result in train_denoiser(training)["denoisers"]]
    tests = [test.model_copy(update={"limit": budget.limit}) for test in parameters.tests]
    record: dict[str, Any] = evaluate_denoiser(
        EvaluateDenoiserParameters(
            denoisers=bundles,
            tests=tests,
            device=parameters.device,
            output=parameters.place("denoising", "-".join(arm.name for arm in arms)),
            cluster=parameters.cluster,
        )
    )
    return record


def _data(parameters: ReproduceParameters, budget: Budget) -> list[str]:
    """What is to be said of the data below a page."""
    draws = f"Corpora hold {budget.scale} draws per clean image of the training split, unless the arm says otherwise."
    return [draws, *shared_scenes(parameters.real, parameters.tests)]


@flow(name="table_downstream", persist_result=False)
def downstream(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Denoisers trained on synthetic pairs alone, beside those trained on real ones."""
    models = parameters.models
    arms = [Arm(name=name, synthetic=_corpus(parameters, budget, name, model)) for name, model in models.items()]
    record = _denoisers(parameters, budget, arms)
    return tables.downstream_page(record, [*models], _data(parameters, budget), parameters.facts)


@flow(name="table_cross_domain", persist_result=False)
def cross_domain(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Half real, half synthetic pairs; on other domains, too."""
    arms = [
        Arm(name=f"{name}-mixed", synthetic=_corpus(parameters, budget, name, model), share=0.5)
        for name, model in parameters.models.items()
    ]
    record = _denoisers(parameters, budget, arms)
    return tables.mixed_page(record, [arm.name for arm in arms], _data(parameters, budget), parameters.facts)


@flow(name="table_scaling", persist_result=False)
def scaling(parameters: ReproduceParameters, budget: Budget) -> Page:
    """More draws per clean image at the same number of steps."""
    corpus = _corpus(parameters, budget, OURS, parameters.model)
    arms = [Arm(name=f"{OURS}-x{k}", synthetic=corpus, draws=k) for k in budget.scales]
    record, draws = _denoisers(parameters, budget, arms), {arm.name: arm.draws or 0 for arm in arms}
    return tables.scaling_page(record, draws, _data(parameters, budget), parameters.facts)


@flow(name="table_unpaired", persist_result=False)
def unpaired(parameters: ReproduceParameters, budget: Budget) -> Page:
    """References whose clean side is estimated from the noisy one, beside paired ones; any noise on any clean image."""
    estimated = parameters.place("unpaired", "references")
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
            synthetic=_corpus(parameters, budget, name, parameters.model, references=references, assign="uniform"),
        )
        for name, references in sources.items()
    ]
    record, data = _denoisers(parameters, budget, arms), _data(parameters, budget)
    return tables.unpaired_page(record, [*sources], parameters.estimator, data, parameters.facts)


@flow(name="table_ablation", persist_result=False)
def ablation(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Noise models without some of their parts."""
    records, test = {}, parameters.tests[0]
    for name, config in write_variants(budget.ablation, parameters.place("ablation")).items():
        folder = config.removesuffix(".yaml")
        train_noise_model(
            TrainParameters(
                config=config, output=folder, stores=[parameters.real], devices=Devices(device=parameters.device)
            )
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
    """A classifier that tells generated from real noise."""
    test = parameters.tests[0]
    records = {
        f"{test.name}, averaged {average} x {average}": evaluate_c2st(
            C2stParameters(
                model=parameters.model,
                also=parameters.also,
                references=test.references,
                split=None if test.split == "validation" else test.split,
                camera=test.camera,
                hold_out="split" if test.split == "validation" else "image",
                limit=budget.c2st.limit,
                steps=budget.c2st.steps,
                seeds=budget.c2st.seeds,
                average=average,
                device=parameters.device,
                output=parameters.place("c2st", f"average-{average}.json"),
                cluster=parameters.cluster,
            )
        )
        for average in budget.c2st.averages
    }
    return tables.c2st_page(records, shared_scenes(parameters.real, [test]), parameters.facts)


@flow(name="table_classifier", persist_result=False)
def classifier(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Whether prompts tell the camera."""
    record = classify_metadata(
        MetadataParameters(
            model=parameters.model,
            references=list(dict.fromkeys([parameters.real, *(test.references for test in parameters.tests)])),
            limit=budget.metadata.limit,
            steps=budget.metadata.steps,
            seeds=budget.metadata.seeds,
            device=parameters.device,
            output=parameters.place("metadata", "record.json"),
            report=parameters.place("metadata", "report.html"),
            cluster=parameters.cluster,
        )
    )
    return tables.classifier_page(record, parameters.facts)


@flow(name="table_speed", persist_result=False)
def speed(parameters: ReproduceParameters, budget: Budget) -> Page:
    """Images a second."""
    place = parameters.place("speed.json")
    record = task_measure_speed(parameters.model, parameters.device, budget.speed_repeats, place)
    return tables.speed_page(record, parameters.facts)


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
"""By the name of their page."""
