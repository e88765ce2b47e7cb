"""The commands about denoisers: `pngnoise train-denoiser`, `evaluate denoiser`, `denoise`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli.console import progress_bar, show, show_fidelity, user_errors
from flows.cli.options import Cluster, Json, RegisterAs, example

commands = typer.Typer()
evaluations = typer.Typer()

_SYNTHETIC = "NAME=SOURCE, a corpus, shipped, a bundle or a baseline; repeatable"


@commands.command(
    name="train-denoiser",
    epilog=example(
        "pngnoise train-denoiser configs/denoisers/dncnn.yaml --real runs/sidd/patches --synthetic png=corpora/a "
        "--mixed half=corpora/a --output runs/denoisers"
    ),
)
def train_denoiser(
    config: Annotated[str, typer.Argument(help="a file of configs/denoisers/")],
    real: Annotated[list[str], typer.Option(help="patch store of real pairs; repeatable")],
    output: Annotated[str, typer.Option(help="folder: <arm>/seed-<n>/bundle")] = "runs/denoisers",
    synthetic: Annotated[list[str] | None, typer.Option(help=f"train on synthetic pairs alone: {_SYNTHETIC}")] = None,
    mixed: Annotated[
        list[str] | None, typer.Option(help=f"train on real and synthetic by halves: {_SYNTHETIC}")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="repeatable; default 0, 1, 2")] = None,
    split: Annotated[str, typer.Option(help="rows of the stores to use")] = "train",
    steps: Annotated[int | None, typer.Option(help="instead of the configuration's")] = None,
    control: Annotated[bool, typer.Option(help="train on the real pairs alone, too")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    workers: Annotated[int, typer.Option(help="processes that make batches ahead")] = 0,
    max_minutes: Annotated[float | None, typer.Option(help="stop resumably after so many minutes of each")] = None,
    register_as: RegisterAs = None,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Train denoisers on real and synthetic pairs, one per kind of data and seed. Run again to resume."""
    with user_errors():
        from flows.train_denoiser import TrainDenoiserParameters
        from flows.train_denoiser import train_denoiser as flow
        from tasks.denoising.training import Arm
        from tasks.runtime.clusters import load_cluster
        from tasks.runtime.devices import Devices

        arms = [Arm(name=name, synthetic=source, share=1.0) for name, source in _named(synthetic, "--synthetic")]
        arms += [Arm(name=name, synthetic=source, share=0.5) for name, source in _named(mixed, "--mixed")]
        parameters = TrainDenoiserParameters(
            config=config,
            output=output,
            real=real,
            split=split,
            arms=arms,
            control=control,
            seeds=seed or [0, 1, 2],
            steps=steps,
            devices=Devices(device=device, workers=workers),
            max_minutes=max_minutes,
            register_as=register_as,
            cluster=load_cluster(cluster),
        )
        with progress_bar(quiet=json):
            result = flow(parameters)
    show(result, as_json=json, title="Denoisers")


@evaluations.command(
    name="denoiser",
    epilog=example("pngnoise evaluate denoiser runs/denoisers nlm --test sidd=runs/sidd/patches@validation"),
)
def evaluate_denoiser(
    denoisers: Annotated[list[str], typer.Argument(help="folders of `train-denoiser`, bundles, or nlm")],
    test: Annotated[
        list[str], typer.Option(help="NAME=PAIRS[@SPLIT]: shipped, a patch store or a catalogue; repeatable")
    ],
    limit: Annotated[int | None, typer.Option(help="at most so many pairs of each, evenly spread")] = None,
    control: Annotated[str, typer.Option(help="arm that the others are compared with")] = "real",
    protocol: Annotated[str, typer.Option(help="sidd: rounded to 8 bits; float: not rounded")] = "sidd",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    output: Annotated[str, typer.Option(help="folder for record, report and what was measured")] = (
        "runs/denoiser-evaluation"
    ),
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """PSNR and SSIM of denoisers on real pairs, with the spread over seeds and paired differences from the control."""
    with user_errors():
        from flows.evaluate_denoiser import evaluate_denoiser as flow
        from tasks.denoising.evaluation import EvaluateDenoiserParameters
        from tasks.runtime.clusters import load_cluster

        parameters = EvaluateDenoiserParameters(
            denoisers=denoisers,
            tests=_tests(test, limit),
            control=control,
            protocol=protocol,
            device=device,
            output=output,
            cluster=load_cluster(cluster),
        )
        with progress_bar(quiet=json):
            record = flow(parameters)
    show_fidelity(record, as_json=json)


@commands.command(
    name="reproduce-paper",
    epilog=example(
        "pngnoise reproduce-paper --budget small --real runs/sidd/patches --test sidd=runs/sidd/patches@validation"
    ),
)
def reproduce_paper(
    real: Annotated[str, typer.Option(help="patch store of real pairs; its split train is trained on")],
    test: Annotated[
        list[str], typer.Option(help="NAME=PAIRS[@SPLIT], the own domain first: a patch store or catalogue; repeatable")
    ],
    budget: Annotated[str, typer.Option(help="smoke, small, full, or a YAML file as in configs/paper/")] = "smoke",
    output: Annotated[str, typer.Option(help="folder; the pages are in its folder pages/")] = "runs/paper",
    model: Annotated[str, typer.Option(help="shipped or a bundle")] = "shipped",
    compare: Annotated[list[str] | None, typer.Option(help="bundle compared as noise; repeatable")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="NAME=GENERATOR to train denoisers on, too; repeatable; default: the three Gaussian ones"),
    ] = None,
    estimator: Annotated[str, typer.Option(help="denoiser that estimates clean images: nlm or a bundle")] = "nlm",
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="only this one, repeatable: noise-quality, downstream, cross-domain, scaling, unpaired, ablation, "
            "c2st, classifier, speed"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """The paper's tables on your data: our figure, the paper's, and what differs. Run again to resume."""
    with user_errors():
        from flows.paper import ReproduceParameters
        from flows.reproduce_paper import reproduce_paper as flow
        from tasks.runtime.clusters import load_cluster

        parameters = ReproduceParameters(
            real=real,
            tests=_tests(test, None),
            budget=budget,
            output=output,
            model=model,
            compare=compare or [],
            **({"baselines": dict(_named(baseline, "--baseline"))} if baseline else {}),
            estimator=estimator,
            tables=table or [],
            device=device,
            cluster=load_cluster(cluster),
        )
        with progress_bar(quiet=json):
            result = flow(parameters)
    show(result["pages"] | {"index": result["index"]}, as_json=json, title="Pages")


def _tests(options: list[str], limit: int | None) -> list[Any]:
    from tasks.denoising.measurement import TestSet

    tests = []
    for name, location in _named(options, "--test"):
        references, at, split = location.rpartition("@")
        chosen = {"references": references, "split": split} if at else {"references": location}
        tests.append(TestSet(name=name, limit=limit, **chosen))
    return tests


def _named(options: list[str] | None, option: str) -> list[tuple[str, str]]:
    from pngmodel.errors import UserError

    found = [tuple(entry.split("=", 1)) for entry in options or []]
    for entry in found:
        if len(entry) != 2 or not all(entry):
            raise UserError(f"{option} {'='.join(entry)!r}: give NAME=SOURCE, e.g. png=corpora/a")
    return found  # type: ignore[return-value]
