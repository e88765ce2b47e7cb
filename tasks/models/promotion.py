"""The gate between a version of a registry and its champion: figures of an evaluation against limits and against the
champion's own. Nothing moves unless they hold, or somebody says why it is to move nevertheless."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pngmodel.errors import UserError
from tasks.models.parameters import PromoteParameters
from tasks.models.registry import check_files, named, now, versioned
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
            raise ValueError("give max, min or both")
        return self


class NoWorse(BaseModel):
    """Comparison of a metric with that of the champion."""

    model_config = ConfigDict(extra="forbid")

    better: Literal["lower", "higher"] = Field(description="Whether lower or higher values are better.")
    by: float = Field(0.0, ge=0, description="Tolerance: how much worse than the champion is still accepted.")


class PromotionRules(BaseModel):
    """One file of configs/promotion/. Metrics are named by their path in the record's ``metrics``: model.lag1_error."""

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
            raise ValueError("has neither limits nor no_worse; such a gate passes everything")
        return self


def load_rules(path: str) -> PromotionRules:
    """A file of configs/promotion/."""
    return load_yaml(path, PromotionRules)


def about(record: dict[str, Any], digest: str) -> dict[str, Any] | None:
    """What an evaluation record says of the model with this digest, with its ``metrics``; None where that is nothing.

    Records of noise generators are about one model (``model``). Those of denoisers list several (``denoisers``), each
    with figures of its own; their pairs are those of all ``tests``.
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


def figure(record: dict[str, Any], name: str) -> float | None:
    """A figure by its place, e.g. ``model.kld``; None where there is no finite number."""
    found: Any = record.get("metrics")
    if isinstance(found, dict) and name in found:  # of denoisers: sidd.psnr is one key
        found = found[name]
    else:
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    number = isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if number else None


def judge(
    record: dict[str, Any], rules: PromotionRules, champion: dict[str, Any] | None, *, incomparable: str | None = None
) -> list[dict[str, Any]]:
    """Every rule with what was found: figure, value, rule in words, ``passed``.

    Args:
        record: the evaluation of the version.
        rules: the gate.
        champion: the evaluation of the champion on the same pairs, None where there is nothing to compare with.
        incomparable: why a champion's evaluation cannot be compared with; fails every comparison.
    """
    found: list[dict[str, Any]] = []

    def add(name: str, value: Any, rule: str, passed: bool) -> None:
        found.append({"figure": name, "value": value, "rule": rule, "passed": passed})

    if rules.protocol is not None:
        protocol = record.get("protocol")
        add("protocol", protocol, rules.protocol, protocol == rules.protocol)
    for name, limit in rules.limits.items():
        value = figure(record, name)
        if limit.max is not None:
            add(name, value, f"at most {limit.max:g}", value is not None and value <= limit.max)
        if limit.min is not None:
            add(name, value, f"at least {limit.min:g}", value is not None and value >= limit.min)
    for name, rule in rules.no_worse.items():
        value = figure(record, name)
        if incomparable is not None:
            add(name, value, f"compared with the champion, {incomparable}", False)
        elif champion is not None:
            theirs = figure(champion, name)
            sign = 1 if rule.better == "lower" else -1
            words = "no figure" if theirs is None else f"{theirs:.6g}"
            text = f"at most {rule.by:g} {'above' if sign == 1 else 'below'} the champion's {words}"
            passed = value is not None and theirs is not None and sign * (value - theirs) <= rule.by
            add(name, value, text, passed)
        else:
            add(name, value, "compared with the champion; there is none yet", value is not None)
    return found


def _comparable(
    registered: Registered, champion: Move, record: dict[str, Any], rules: PromotionRules
) -> tuple[dict[str, Any] | None, str | None]:
    """The champion's evaluation that is of the same pairs, or why there is none."""
    stored = [champion.record, *(d for d in registered.evaluations(champion.version) if d != champion.record)]
    for digest in stored:
        theirs = about(registered.evaluation(champion.version, digest), champion.digest)
        if theirs is not None and all(theirs.get(key) == record.get(key) for key in rules.same):
            return theirs, None
    return None, (
        f"{registered.name}@{champion.version}, which has no stored evaluation with the same "
        f"{' and '.join(rules.same)}: evaluate it on these pairs and promote it again with that record"
    )


def _failures(findings: list[dict[str, Any]]) -> list[str]:
    def words(value: Any) -> str:
        return "missing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    return [f"{f['figure']} is {words(f['value'])}, has to be {f['rule']}" for f in findings if not f["passed"]]


def promote(parameters: PromoteParameters) -> dict[str, Any]:
    """Judge a version by its evaluation and make it the champion; the record is kept either way. What was
    promoted with this record before moves nothing, also after a rollback, unless ``override`` says why.

    Returns:
        The last move: version, previous champion, findings, override.

    Raises:
        UserError: the gate fails and nobody overrides (names every figure and limit), the record is of another model,
            or somebody else moved the champion meanwhile. IntegrityError: the version is damaged.
    """
    rules = load_rules(parameters.rules)
    registered, version = versioned(parameters.version)
    record = about(read_json(parameters.record), version.digest)
    if record is None:
        raise UserError(
            f"{parameters.record}: says nothing of {version.digest}, the digest of {parameters.version}; evaluate that "
            "version by its name in the registry"
        )
    check_files(registered, version)
    kept = registered.keep_evaluation(version.version, read_bytes(parameters.record))
    champion = registered.champion()
    promoted = {(move.version, move.record) for move in registered.moves() if move.action == "promote"}
    if champion is not None and (version.version, kept) in promoted and parameters.override is None:
        return _told(champion)  # asked twice, e.g. by an event that was told again; maybe rolled back since
    theirs, incomparable = None, None
    # A champion that is promoted again, with a newer record, is not compared with itself.
    if champion is not None and champion.version != version.version and rules.no_worse:
        theirs, incomparable = _comparable(registered, champion, record, rules)
    findings = judge(record, rules, theirs, incomparable=incomparable)
    failures = _failures(findings)
    if failures and parameters.override is None:
        raise UserError(
            f"{parameters.version}: not promoted, the champion stays "
            f"{champion.version if champion else 'undecided'}: {'; '.join(failures)} ({parameters.rules}). The record "
            f'is kept as evaluation {kept}. Train on, change the rules, or say why it is to move: --override "WHY"'
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
    """Make the champion what it was before: the version that the present one replaced, or ``to``.

    Args:
        place: ``REGISTRY/NAME``.
        reason: recorded.
        to: a version that was champion once.

    Raises:
        UserError: there is no such version, or somebody else moved the champion meanwhile. IntegrityError: damaged.
    """
    registered = named(location)
    if not reason.strip():
        raise UserError(f"{registered.url}: say why it is rolled back: --reason")
    moves = registered.moves()
    if not moves:
        raise UserError(f"{registered.url}: has no champion to roll back")
    promoted = {move.version: move for move in moves if move.action == "promote"}
    replaced = [m.previous for m in moves if (m.action, m.version) == ("promote", moves[-1].version)]
    back = to if to is not None else next((p for p in reversed(replaced) if p not in (None, moves[-1].version)), None)
    if back is None or back not in promoted:
        told = ", ".join(map(str, sorted(promoted)))
        what = "no champion was there before" if back is None else f"version {back} never was champion"
        raise UserError(f"{registered.url}: {what}; versions that were: {told}. Promote another with its evaluation")
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
            f"{registered.url}: the champion was moved by somebody else meanwhile; nothing was changed, look at it "
            "with `pngnoise registry show` and run the same command again"
        )
    return _told(move)


def _told(move: Move) -> dict[str, Any]:
    return move.model_dump(mode="json", exclude={"format", "format_version", "rules"})


def findings_table(move: dict[str, Any]) -> str:
    """What the gate looked at as a markdown table."""
    rows = [(f["figure"], f["value"], f["rule"], f["passed"]) for f in move["findings"]]
    return table(("figure", "value", "has to be", "passed"), rows)


task_promote = step("promote")(promote)
