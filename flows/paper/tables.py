"""Build the paper's tables from evaluation records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.paper import published
from flows.paper.pages import NONE, Page, number
from tasks.denoising.measurement import NOISY
from tasks.evaluation.metadata import PUBLISHED as METADATA
from tasks.reports.markdown import code
from tasks.reports.tables import NAMES, ordered, with_spread

Record = Mapping[str, Any]
Facts = Mapping[str, str]


def noise_page(records: Mapping[str, Record], data: Sequence[str], facts: Facts) -> Page:
    """Noise quality by camera; ``records``: test set -> record of evaluate_noise; ``data``: further notes."""
    head = ["set and camera", "pairs", "generator", "KLD ↓", "KLD, paper", "KLD rounded ↓", "AKLD", "lag-1 error ↓"]
    rows, notes = [], []
    for test, record in records.items():
        cameras = record["cameras"] | {"mean of cameras": record["metrics"]}
        for camera, metrics in cameras.items():
            pairs = record["cameras_pairs"].get(camera, record["pairs"])
            for name, row in ordered(metrics).items():
                mine = published.KLD.get(camera, published.KLD_MEAN if camera not in record["cameras_pairs"] else None)
                cells = [row["kld_naflow"], mine if name == "model" else None, row["kld_naflow_rounded"]]
                cells += [row["akld"], row["lag1_error"]]
                rows.append([f"{test}: {camera}", str(pairs), NAMES.get(name, name), *map(number, cells)])
        notes += _simplified(record)
    others = ", ".join(f"{name} {value:.4f}" for name, value in published.KLD_OF_OTHERS.items())
    return Page(
        "noise-quality",
        "Noise quality by camera",
        "Protocol noise-A, one noise sample per image. KLD is `kld_naflow`; KLD rounded is computed after rounding the "
        f"generated image to 8 bits. The paper's means over its five cameras: KLD {published.KLD_MEAN}, AKLD "
        f"{published.AKLD_MEAN}; KLD of other methods: {others}.",
        head,
        rows,
        [
            "KLD without rounding cannot be below the floor, the value for dithered real noise; where the floor is "
            "above the paper's value, the two are not comparable. AKLD also has a floor; values below it are not "
            "better.",
            "Test pairs are the given test sets, not the 1248 blocks of SIDD validation.",
            "Our model takes the noise distribution by intensity and the covariances from the reference; the paper's "
            "model learns them. KLD is therefore not a measure of our network.",
            *data,
            *dict.fromkeys(notes),
        ],
        facts,
    )


def _simplified(record: Record) -> list[str]:
    """Return how re-implemented generators differ from their papers."""
    return [f"{name}: {'; '.join(lines)}." for name, lines in record.get("simplifications", {}).items()]


def fidelity_page(
    name: str,
    title: str,
    intro: str,
    record: Record,
    arms: Sequence[str],
    paper: Mapping[str, str],
    data: Sequence[str],
    facts: Facts,
) -> Page:
    """PSNR by training data and test set; ``paper``: arm -> the paper's value, for the first test set."""
    rows = []
    for location, (test, found) in enumerate(record["tests"].items()):
        for arm in (NOISY, record["control"], *arms):
            metrics, difference = found["metrics"].get(arm), found["differences"].get(arm, {}).get("psnr")
            if metrics is None:
                continue
            cells = [with_spread(metrics, "psnr", 2), number(metrics["ssim"])]
            cells += [number(difference["mean"], 2, sign=True) if difference else NONE]
            cells += [f"{difference['low']:+.2f} to {difference['high']:+.2f}" if difference else NONE]
            rows.append([test, arm, *cells, paper.get(arm, NONE) if location == 0 else NONE])
    trained = [d for d in record["denoisers"] if "training" in d]
    steps = ", ".join(sorted({str(d["training"]["steps"]) for d in trained}))
    seeds = ", ".join(map(str, sorted({d["seed"] for d in trained})))
    return Page(
        name,
        title,
        intro,
        ["test set", "training data", "PSNR dB ↑", "SSIM ↑", "ΔPSNR to real pairs, dB", "95 % CI", "paper"],
        rows,
        [
            f"{steps} steps, seeds {seeds}; the paper trains DnCNN on all of SIDD-Medium for 100 000 steps on 96 x 96 "
            "crops.",
            "Test sets are the given ones. ± is the standard deviation over seeds; the 95 % CI (confidence interval) "
            "is a bootstrap over scenes and seeds and is too narrow if there are few of them.",
            *data,
        ],
        facts,
    )


def downstream_page(record: Record, arms: Sequence[str], data: Sequence[str], facts: Facts) -> Page:
    """Denoisers trained only on synthetic pairs."""
    paper = {arm: f"{value:.2f}" for arm, value in published.DNCNN.items()}
    gap = published.DNCNN["png"] - published.DNCNN["real"]
    others = ", ".join(f"{name} {published.DNCNN[name]:.2f}" for name in ("naflow", "neca_w", "c2n"))
    intro = (
        f"DnCNN in the paper, SIDD benchmark: PNG minus real {gap:+.2f} dB; other methods: {others}. Compare "
        "differences, not absolute values: test sets and training steps are not the same."
    )
    title = "Denoisers trained only on synthetic pairs"
    return fidelity_page("downstream", title, intro, record, arms, paper, data, facts)


def mixed_page(record: Record, arms: Sequence[str], data: Sequence[str], facts: Facts) -> Page:
    """Denoisers trained on half real, half synthetic pairs."""
    real, ours = published.MIXED["real"], published.MIXED["png"]
    gains = ", ".join(f"{name} {ours[name] - real[name]:+.2f}" for name in real)
    intro = (
        "Each sample is synthetic with probability 0.5; the number of steps is the same as for real pairs only. Gains "
        f"in the paper: {gains} dB."
    )
    mean = sum(ours[name] - real[name] for name in real) / len(real)
    paper = {"png-mixed": f"{mean:+.2f} dB (mean of 4 sets)"}
    return fidelity_page("cross-domain", "Half real, half synthetic", intro, record, arms, paper, data, facts)


def scaling_page(record: Record, repeats: Mapping[str, int], data: Sequence[str], facts: Facts) -> Page:
    """Denoisers trained on increasing numbers of noise samples; ``repeats``: arm -> samples per clean image."""
    first, last = min(published.SCALING), max(published.SCALING)
    gain = published.SCALING[last] - published.SCALING[first]
    intro = (
        "The number of steps is the same for all. The paper's mean over external test sets changes by "
        f"{gain:+.2f} dB from x{first} to x{last}."
    )
    paper = {arm: number(published.SCALING.get(k), 2) for arm, k in repeats.items()}
    return fidelity_page("scaling", "Noise samples per clean image", intro, record, [*repeats], paper, data, facts)


def unpaired_page(record: Record, arms: Sequence[str], estimator: str, data: Sequence[str], facts: Facts) -> Page:
    """Denoisers trained on noise from references without clean images."""
    intro = (
        f"{code(arms[0])}: real pairs are the references, any reference for any clean image. {code(arms[1])}: the "
        "same, but the clean image of every reference is estimated from its noisy image by "
        f"{code(estimator)}. The difference is the effect of paired references; the noise model itself was trained on "
        "pairs."
    )
    return fidelity_page("unpaired", "Unpaired references", intro, record, arms, {}, data, facts)


def ablation_page(records: Mapping[str, Record], steps: str, facts: Facts) -> Page:
    """``records``: variant -> record of evaluate_noise; compares the networks without calibration."""
    rows = []
    for name, record in records.items():
        metrics = record["metrics"]
        alone = metrics.get("uncalibrated", metrics["model"])
        kld, akld = published.ABLATION.get(name, (published.ABLATION_KLD.get(name), None))
        cells = [alone["kld_naflow"], kld, alone["akld"], akld, alone["kld_naflow_rounded"], alone["lag1_error"]]
        rows.append([name, *map(number, cells), number(alone["std_ratio"], 3)])
    floor = next(iter(records.values()))["metrics"]["floor"]
    cells = [floor["kld_naflow"], None, floor["akld"], None, floor["kld_naflow_rounded"], floor["lag1_error"]]
    rows.append(["floor", *map(number, cells), number(floor["std_ratio"], 3)])
    return Page(
        "ablation",
        "Ablation of prompts and conditions",
        "The network without calibration: calibration to the reference would hide the differences.",
        ["variant", "KLD ↓", "KLD, paper", "AKLD", "AKLD, paper", "KLD rounded ↓", "lag-1 error ↓", "std ratio →1"],
        rows,
        [
            f"{steps}; the paper trains for 400 000 + 250 000 steps. One seed.",
            "Noise is whitened with the reference's statistics before it enters the network (preset of the "
            "configuration), so the noise level is correct even without prompts; the paper's network must learn it "
            "from prompts.",
        ],
        facts,
    )


def c2st_page(records: Mapping[str, Record], data: Sequence[str], facts: Facts) -> Page:
    """``records``: column title -> record of evaluate_c2st. Not in the paper."""
    names = list(dict.fromkeys(row for record in records.values() for row in record["metrics"]))
    rows = []
    for name in names:
        cells = []
        for record in records.values():
            metrics = record["metrics"].get(name)
            cells.append(with_spread(metrics, "auc", 3) if metrics else NONE)
        rows.append([NAMES.get(name, name), *cells])
    notes = [text for record in records.values() for text in _simplified(record)]
    return Page(
        "c2st",
        "Can a small classifier distinguish it from real noise?",
        "AUC of a classifier two-sample test on held-out data: 0.5 is indistinguishable, 1 is perfectly "
        "distinguishable. All classifiers have the same budget.",
        ["generator", *records],
        rows,
        ["The paper does not report this.", *data, *dict.fromkeys(notes)],
        facts,
    )


def classifier_page(record: Record, facts: Facts) -> Page:
    """Accuracy of classifying the camera, and the camera and ISO, from frozen prompts and from noise."""
    rows = []
    for kind, found in record["tasks"].items():
        for features, metrics in found["metrics"].items():
            paper = METADATA.get(kind, {}).get(features, {})
            for rank in ("top1", "top3"):
                if rank not in metrics:
                    continue
                cells = [with_spread(metrics, rank, 1, 100), f"{100 * paper[rank]:.2f}" if rank in paper else NONE]
                rows.append([kind, features, rank, *cells])
    return Page(
        "classifier",
        "Metadata classification",
        "Accuracy in % of small networks of equal size on held-out scenes.",
        ["classes", "features", "metric", "measured", "paper"],
        rows,
        ["Cameras and scenes are those of the given pairs; the classification head is our own."],
        facts,
    )


def speed_page(record: Record, facts: Facts) -> Page:
    """Images per second; ``record``: from tasks.evaluation.speed."""
    rows = []
    for name, by_side in record["images_per_second"].items():
        for side, rate in by_side.items():
            paper = published.SPEED.get(name, {}).get(int(side))
            rows.append([name, side, number(rate, 3), str(paper) if paper else NONE])
    ours = record["images_per_second"]
    ratio = ours["png"]["256"] / ours["naflow"]["256"]
    return Page(
        "speed",
        "Images per second",
        f"Batch size 1, prompts are reused. At 256 x 256, the ratio of our speed to NAFlow's is {ratio:.2f}; the "
        "paper's ratio is 4.4.",
        ["generator", "side", "images/s ↑", "paper, unspecified GPU"],
        rows,
        ["NAFlow's weights are random, which does not affect its speed. Our bundle is smaller than the paper's model."],
        facts,
    )
