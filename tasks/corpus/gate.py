"""The quality gate between generating and publishing a corpus. Rejected samples are listed, never dropped silently."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pngmodel.errors import UserError
from tasks.runtime.configuration import load_yaml
from tasks.stores.corpus_store import COMMIT, FAILED_GATE, GATE
from tasks.stores.io.filesystem import exists, join, write_json

DEFAULT = "default"
_LIMITS = ("max_kld", "max_lag1_error", "max_cross_channel_error", "camera_std_ratio")


class GateRules(BaseModel):
    """One file of configs/quality_gates/.

    A sample that breaks a rule is rejected with the rule's name; a camera that breaks one fails the corpus.
    """

    model_config = ConfigDict(extra="forbid")

    std_ratio: tuple[float, float] = Field(
        (0.6, 1.5),
        description="Allowed ratio of the noise standard deviation to that of the reference at the same intensities.",
    )
    min_noise_std: float = Field(
        0.0005,
        ge=0,
        description="Reject samples whose noise standard deviation is smaller, as a fraction of the data range.",
    )
    max_saturated: float = Field(
        0.95, gt=0, le=1, description="Reject samples with a larger share of noisy values at 0 or white, 0 to 1."
    )
    duplicates: bool = Field(False, description="Allow samples with identical noise.")
    max_rejected_share: float = Field(
        0.02, ge=0, le=1, description="Do not publish if a larger share of the samples is rejected, 0 to 1."
    )
    sampled_pairs: int = Field(
        64, ge=1, description="Number of pairs that are compared with the noise of their references."
    )
    max_kld: float | None = Field(
        0.15,
        gt=0,
        description="Maximum KL divergence of whitened noise per camera, real from generated; null: no limit.",
    )
    max_lag1_error: float | None = Field(
        0.1, gt=0, description="Maximum error of the lag-1 correlation of whitened noise per camera; null: no limit."
    )
    max_cross_channel_error: float | None = Field(
        0.15, gt=0, description="Maximum error of the correlations between colour channels per camera; null: no limit."
    )
    camera_std_ratio: tuple[float, float] | None = Field(
        (0.8, 1.25),
        description="Allowed ratio of the standard deviation of generated to real whitened noise per camera; "
        "null: no limit.",
    )


def load_rules(gate: str, *, baseline: bool = False) -> GateRules:
    """Load ``default`` or a YAML file. By default baselines are not compared with real noise: they would fail."""
    if gate == DEFAULT:
        return GateRules(**dict.fromkeys(_LIMITS)) if baseline else GateRules()
    return load_yaml(gate, GateRules)


def reasons(table: pa.Table, rules: GateRules) -> dict[int, str]:
    """Reason of rejection by row of a manifest; empty if all samples pass."""
    std, expected, saturated = (_column(table, name) for name in ("noise_std", "expected_std", "saturated"))
    # The std of a saturated patch is too low, so it is not checked.
    judged = (expected > 0) & (saturated < 0.5)
    ratio = np.divide(std, expected, out=np.ones_like(std), where=judged)
    dead = ~(std >= rules.min_noise_std)  # also rejects NaN
    off = ~dead & ((ratio < rules.std_ratio[0]) | (ratio > rules.std_ratio[1]))
    full = ~dead & ~off & (saturated > rules.max_saturated)
    found = {int(row): f"dead: noise std {std[row]:.2g}" for row in np.flatnonzero(dead)}
    low, high = rules.std_ratio
    found |= {int(row): f"std ratio: {ratio[row]:.3f} outside {low} to {high}" for row in np.flatnonzero(off)}
    found |= {int(row): f"saturated: {saturated[row]:.3f} of the values" for row in np.flatnonzero(full)}
    return dict(sorted(found.items()))


def _column(table: pa.Table, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(table.column(name).to_numpy(), np.float64)
    return values


def _writable(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics for JSON: NaN becomes null."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def camera_failures(cameras: Mapping[str, Mapping[str, float]], rules: GateRules) -> list[str]:
    """Violated limits of each camera."""
    limits = {name: getattr(rules, f"max_{name}") for name in ("kld", "lag1_error", "cross_channel_error")}
    found = []
    for camera, metrics in cameras.items():
        found += [
            f"camera {camera}: {name} {metrics[name]:.3f}, allowed {limit:g}"
            for name, limit in limits.items()
            if limit is not None and not metrics[name] <= limit
        ]
        allowed = rules.camera_std_ratio
        if allowed is not None and not allowed[0] <= metrics["std_ratio"] <= allowed[1]:
            found.append(f"camera {camera}: std ratio {metrics['std_ratio']:.3f}, allowed {allowed[0]} to {allowed[1]}")
    return found


@dataclass(frozen=True)
class Verdict:
    """The result of the gate for a corpus that may be published."""

    failures: list[str]
    """Failures that were overridden."""
    document: dict[str, Any]
    """gate.json."""


def run_gate(
    output: str,
    evidence: dict[str, Any],
    cameras: Mapping[str, Mapping[str, float]],
    rules: GateRules,
    override: str | None = None,
) -> Verdict:
    """Apply the gate to the whole corpus and write the evidence.

    Args:
        output: the corpus.
        evidence: counts of samples and rejections (:class:`tasks.corpus.manifest.Compacted`).
        cameras: figures of sampled noise by camera (:func:`tasks.corpus.noise_check.compare`), may be empty.
        rules: the limits.
        override: why a failure is to be passed over; recorded.

    Raises:
        UserError: it fails and nobody overrides; the shards stay, nothing is published.
    """
    share = sum(evidence["reasons"].values()) / evidence["samples"]
    failures = camera_failures(cameras, rules)
    if share > rules.max_rejected_share:
        first = evidence["rejected"][0]
        failures.insert(
            0,
            f"{sum(evidence['reasons'].values())} of {evidence['samples']} samples rejected ({share:.1%}, allowed "
            f"{rules.max_rejected_share:.1%}); e.g. sample {first['sample']}: {first['reason']}",
        )
    verdict = {
        "passed": not failures,
        "failures": failures,
        "override": override if failures else None,
        "rules": rules.model_dump(mode="json"),
        "rejected_share": round(share, 6),
        "cameras": {camera: _writable(metrics) for camera, metrics in cameras.items()},
    }
    # While samples are added to a published corpus, its gate.json stays until it is published again.
    published = exists(join(output, COMMIT))
    location = join(output, FAILED_GATE if published else GATE)
    refused = bool(failures) and override is None
    if refused or not published:
        write_json(location, evidence | verdict)
    if refused:
        raise UserError(
            f"{output}: the quality gate failed: {'; '.join(failures)}. Nothing was published; the evidence is in "
            f"{location}. Change the model, the references or the rules of the gate, or publish anyway "
            'with --override-gate "WHY"'
        )
    return Verdict(failures, evidence | verdict)
