"""Promotion of a registry version to champion. Promotes only if the metrics of an evaluation pass all thresholds and
comparisons with the champion, or an override reason is given."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pngmodel.errors import UserError
from tasks.models.parameters import PromoteParameters
from tasks.models.registry import check_files, now, parse_model_name, parse_version_name
from tasks.reports.markdown import table
from tasks.runtime.configuration import load_yaml
from tasks.runtime.steps import step
from tasks.stores.io.filesystem import read_bytes, read_json
from tasks.stores.model_registry import Move, Registered, Version


class Limit(BaseModel):
    """Limits of a metric."""

    model_config = ConfigDict(extra="forbid")

    max: float | None = Field(None, description="Maximum value.")
    min: float | None = Field(None, description="Minimum value.")

    @model_validator(mode="after")
    def _some(self) -> Limit:
        if self.max is None and self.min is None:
            raise ValueError("set max, min or both")
        return self


class NoWorse(BaseModel):
    """Comparison of a metric with that of the champion."""

    model_config = ConfigDict(extra="forbid")

    better: Literal["lower", "higher"] = Field(description="Whether lower or higher values are better.")
    by: float = Field(0.0, ge=0, description="Tolerance: how much worse than the champion is still accepted.")


class PromotionRules(BaseModel):
    """Rules of a promotion: one file in configs/promotion/.

    Metrics are named by their path in ``metrics`` of the record, e.g. model.lag1_error.
    """

    model_config = ConfigDict(extra="forbid")

    protocol: str | None = Field(None, description="Required protocol of the record, e.g. noise-C.")
    limits: dict[str, Limit] = Field(default_factory=dict, description="Limits by metric.")
    no_worse: dict[str, NoWorse] = Field(
        default_factory=dict, description="Comparison with the champion by metric, if there is a champion."
    )
    same: list[str] = Field(
        default=["protocol", "references"],
        description="Keys of the records that must be equal for a comparison with the champion.",
    )

    @model_validator(mode="after")
    def _some(self) -> PromotionRules:
        if not self.limits and not self.no_worse:
            raise ValueError("set limits, no_worse or both; without them every version passes")
        return self


def load_rules(path: str) -> PromotionRules:
    """Load promotion rules from a YAML file."""
    return load_yaml(path, PromotionRules)


def evaluation_of(record: dict[str, Any], digest: str) -> dict[str, Any] | None:
    """Return the part of an evaluation record for the model with ``digest``, including ``metrics``; None if absent.

    Records of noise generators cover one model (key ``model``). Records of denoisers list several (key ``denoisers``)
    with their own metrics; their pairs are those of all ``tests``.
    """
    listed = record.get("denoisers")
    if not isinstance(listed, list):
        found = record.get("model")
        return record if isinstance(found, dict) and found.get("digest") == digest else None
    mine = next((entry for entry in listed if isinstance(entry, dict) and entry.get("digest") == digest), None)
    if mine is None:
        return None
    tests = record.get("tests")
    pairs = {name: test.get("references") for name, test in tests.items()} if isinstance(tests, dict) else None
    return record | {"metrics": mine.get("metrics"), "references": pairs}


def metric_value(record: dict[str, Any], name: str) -> float | None:
    """Return the metric at a path, e.g. ``model.kld``; None if it is missing or not a finite number."""
    found: Any = record.get("metrics")
    if isinstance(found, dict) and name in found:  # in records of denoisers, sidd.psnr is one key
        found = found[name]
    else:
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    number = isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if number else None


def judge(
    record: dict[str, Any], rules: PromotionRules, champion: dict[str, Any] | None, *, incomparable: str | None = None
) -> list[dict[str, Any]]:
    """Check an evaluation against promotion rules.

    Args:
        record: Evaluation of the version.
        rules: Promotion rules.
        champion: Evaluation of the champion on the same pairs; None if there is no champion.
        incomparable: Reason why the champion has no comparable evaluation; fails all comparisons.

    Returns:
        One finding per rule: ``figure`` (the metric), ``value``, ``rule`` (description) and ``passed``.
    """
    found: list[dict[str, Any]] = []

    def add(name: str, value: Any, rule: str, passed: bool) -> None:
        found.append({"figure": name, "value": value, "rule": rule, "passed": passed})

    if rules.protocol is not None:
        protocol = record.get("protocol")
        add("protocol", protocol, rules.protocol, protocol == rules.protocol)
    for name, limit in rules.limits.items():
        value = metric_value(record, name)
        if limit.max is not None:
            add(name, value, f"at most {limit.max:g}", value is not None and value <= limit.max)
        if limit.min is not None:
            add(name, value, f"at least {limit.min:g}", value is not None and value >= limit.min)
    for name, rule in rules.no_worse.items():
        value = metric_value(record, name)
        if incomparable is not None:
            add(name, value, f"compared with the champion, {incomparable}", False)
        elif champion is not None:
            champion_value = metric_value(champion, name)
            sign = 1 if rule.better == "lower" else -1
            formatted = "missing value" if champion_value is None else f"{champion_value:.6g}"
            text = f"at most {rule.by:g} {'above' if sign == 1 else 'below'} the champion's {formatted}"
            passed = value is not None and champion_value is not None and sign * (value - champion_value) <= rule.by
            add(name, value, text, passed)
        else:
            add(name, value, "compared with the champion; there is no champion yet", value is not None)
    return found


def _comparable(
    registered: Registered, champion: Move, record: dict[str, Any], rules: PromotionRules
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the evaluation of the champion on the same pairs, or the reason why there is none."""
    stored = [champion.record, *(d for d in registered.evaluations(champion.version) if d != champion.record)]
    for digest in stored:
        found = evaluation_of(registered.evaluation(champion.version, digest), champion.digest)
        if found is not None and all(found.get(key) == record.get(key) for key in rules.same):
            return found, None
    return None, (
        f"{registered.name}@{champion.version}, which has no stored evaluation with the same "
        f"{' and '.join(rules.same)}: evaluate the champion on these pairs and promote it again with that record"
    )


def _failures(findings: list[dict[str, Any]]) -> list[str]:
    def formatted(value: Any) -> str:
        return "missing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    return [f"{f['figure']} is {formatted(f['value'])}, must be {f['rule']}" for f in findings if not f["passed"]]


def promote(parameters: PromoteParameters) -> dict[str, Any]:
    """Promote a version to champion if its evaluation passes the rules. The evaluation record is stored in any case.

    A version that was already promoted with this record is not promoted again, even after a rollback, unless
    ``override`` is set.

    Returns:
        The last move: version, previous champion, findings, override.

    Raises:
        UserError: A rule fails without an override (names every metric and threshold), the record is of another model,
            or another process moved the champion in the meantime.
        IntegrityError: The version is damaged.
    """
    rules = load_rules(parameters.rules)
    registered, version = parse_version_name(parameters.version)
    record = evaluation_of(read_json(parameters.record), version.digest)
    if record is None:
        raise UserError(
            f"{parameters.record}: has no evaluation of digest {version.digest}, which is {parameters.version}; "
            f"evaluate that version with --model {parameters.version}"
        )
    check_files(registered, version)
    kept = registered.keep_evaluation(version.version, read_bytes(parameters.record))
    champion = registered.champion()
    promoted = {(move.version, move.record) for move in registered.moves() if move.action == "promote"}
    if champion is not None and (version.version, kept) in promoted and parameters.override is None:
        return _public(champion)  # a repeated request, e.g. after a repeated event or a rollback
    champion_record, incomparable = None, None
    # A champion that is promoted again with a newer record is not compared with itself.
    if champion is not None and champion.version != version.version and rules.no_worse:
        champion_record, incomparable = _comparable(registered, champion, record, rules)
    findings = judge(record, rules, champion_record, incomparable=incomparable)
    failures = _failures(findings)
    if failures and parameters.override is None:
        raise UserError(
            f"{parameters.version}: not promoted, {f'version {champion.version}' if champion else 'no version'} stays "
            f"champion: {'; '.join(failures)} (rules in {parameters.rules}). The record is stored as evaluation "
            f'{kept}. Improve the model, change the rules, or promote it with --override "REASON"'
        )
    return _move(
        registered,
        champion,
        version,
        action="promote",
        record=kept,
        rules=rules.model_dump(mode="json"),
        findings=findings,
        override=parameters.override if failures else None,
        reason=parameters.reason if not failures else f"overridden: {parameters.override}",
    )


def roll_back(location: str, reason: str, to: int | None = None) -> dict[str, Any]:
    """Restore a previous champion.

    Args:
        location: ``REGISTRY/NAME``.
        reason: Recorded with the move.
        to: A version that was champion before; default: the version that the current champion replaced.

    Raises:
        UserError: There is no such version, or another process moved the champion in the meantime.
        IntegrityError: The version is damaged.
    """
    registered = parse_model_name(location)
    if not reason.strip():
        raise UserError(f"{registered.url}: a rollback requires a reason; set --reason")
    moves = registered.moves()
    if not moves:
        raise UserError(f"{registered.url}: has no champion to roll back; promote a version first")
    promoted = {move.version: move for move in moves if move.action == "promote"}
    replaced = [m.previous for m in moves if (m.action, m.version) == ("promote", moves[-1].version)]
    back = to if to is not None else next((p for p in reversed(replaced) if p not in (None, moves[-1].version)), None)
    if back is None or back not in promoted:
        champions = ", ".join(map(str, sorted(promoted)))
        problem = "there is no previous champion" if back is None else f"version {back} was never champion"
        raise UserError(
            f"{registered.url}: {problem}; previous and current champions: {champions}. Use one of them, or promote "
            "another version with its evaluation"
        )
    version = registered.version(back)
    check_files(registered, version)
    return _move(
        registered,
        moves[-1],
        version,
        action="rollback",
        record=promoted[back].record,
        rules=None,
        findings=[],
        override=None,
        reason=reason,
    )


def _move(registered: Registered, champion: Move | None, version: Version, **facts: Any) -> dict[str, Any]:
    move = Move(
        name=registered.name,
        move=(champion.move if champion else 0) + 1,
        version=version.version,
        digest=version.digest,
        previous=champion.version if champion else None,
        moved=now(),
        **facts,
    )
    if not registered.create_move(move):
        raise UserError(
            f"{registered.url}: another process moved the champion in the meantime; nothing was changed. Check it with "
            "`pngnoise registry show` and run the same command again"
        )
    return _public(move)


def _public(move: Move) -> dict[str, Any]:
    return move.model_dump(mode="json", exclude={"format", "format_version", "rules"})


def findings_table(move: dict[str, Any]) -> str:
    """Format the findings of a move as a Markdown table."""
    rows = [(f["figure"], f["value"], f["rule"], f["passed"]) for f in move["findings"]]
    return table(("metric", "value", "required", "passed"), rows)


task_promote = step("promote")(promote)
