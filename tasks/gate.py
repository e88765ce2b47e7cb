"""The quality gate between making a corpus and publishing it. Rejected samples are listed, never dropped silently."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from pngmodel.errors import UserError
from tasks.configuration import load_yaml
from tasks.stores.corpus import GATE
from tasks.stores.filesystem import join, write_json

DEFAULT = "default"


class GateRules(BaseModel):
    """One file of configs/corpora/. A sample that breaks a rule is rejected with the rule's name."""

    model_config = ConfigDict(extra="forbid")

    std_ratio: tuple[float, float] = Field(
        (0.6, 1.5), description="allowed noise std over the reference's std at the same intensities"
    )
    min_noise_std: float = Field(0.0005, ge=0, description="dead below this noise std, fraction of full scale")
    max_saturated: float = Field(0.95, gt=0, le=1, description="largest share of noisy values at 0 or full scale")
    duplicates: bool = Field(False, description="allow two samples with identical noise")
    max_rejected_share: float = Field(0.02, ge=0, le=1, description="more rejections than this: nothing is published")


def load_rules(gate: str) -> GateRules:
    """``default``, or a YAML file."""
    return GateRules() if gate == DEFAULT else load_yaml(gate, GateRules)


def reasons(table: pa.Table, rules: GateRules) -> dict[int, str]:
    """Reason of rejection by row of a manifest, empty when all samples pass."""
    found: dict[int, str] = {}
    seen: dict[str, int] = {}
    columns = ("noise_std", "expected_std", "saturated", "noise_sha256")
    for row, (std, expected, saturated, digest) in enumerate(
        zip(*(table.column(name).to_pylist() for name in columns), strict=True)
    ):
        first = seen.setdefault(digest, row)
        # A saturated patch cannot carry its full noise, so its std is no evidence.
        ratio = std / expected if expected > 0 and saturated < 0.5 else None
        if std < rules.min_noise_std:
            found[row] = f"dead: noise std {std:.2g}"
        elif ratio is not None and not rules.std_ratio[0] <= ratio <= rules.std_ratio[1]:
            found[row] = f"std ratio {ratio:.3f} outside {rules.std_ratio[0]} to {rules.std_ratio[1]}"
        elif saturated > rules.max_saturated:
            found[row] = f"saturated: {saturated:.3f} of the values"
        elif first != row and not rules.duplicates:
            found[row] = f"duplicate: the noise of sample {first}"
    return found


def run_gate(output: str, table: pa.Table, rules: GateRules) -> dict[int, str]:
    """Judge every sample, keep the evidence in gate.json, return the rejected rows with reasons.

    Raises:
        UserError: too many rejections; the shards stay, nothing is published.
    """
    rejected = reasons(table, rules)
    share = len(rejected) / table.num_rows
    passed = share <= rules.max_rejected_share
    evidence: dict[str, Any] = {
        "passed": passed,
        "rules": rules.model_dump(mode="json"),
        "samples": table.num_rows,
        "rejected_share": round(share, 6),
        "reasons": dict(
            sorted(Counter(r.split(":")[0].split(" outside")[0].split(" ")[0] for r in rejected.values()).items())
        ),
        "rejected": [{"sample": row, "reason": reason} for row, reason in sorted(rejected.items())],
        "std_ratio": _quantiles(table),
    }
    write_json(join(output, GATE), evidence)
    if not passed:
        first = next(iter(sorted(rejected.items())))
        raise UserError(
            f"{output}: the quality gate rejected {len(rejected)} of {table.num_rows} samples "
            f"({share:.1%}, allowed {rules.max_rejected_share:.1%}); e.g. sample {first[0]}: {first[1]}. Nothing was "
            f"published; the evidence is in {join(output, GATE)}. Change the model, the references or the gate's rules"
        )
    return rejected


def _quantiles(table: pa.Table) -> dict[str, float]:
    std, expected = (np.asarray(table.column(name).to_pylist(), np.float64) for name in ("noise_std", "expected_std"))
    values = np.quantile(std / np.maximum(expected, 1e-9), [0.01, 0.5, 0.99])
    return {name: round(float(v), 4) for name, v in zip(("p01", "p50", "p99"), values, strict=True)}


task_gate = task(cache_policy=NO_CACHE, name="quality_gate")(run_gate)
