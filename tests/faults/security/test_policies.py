"""infra/policies/: what the files allow and forbid, by the rules of the language (a server: test_policies_enforced)."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

POLICIES = Path(__file__).parents[3] / "infra" / "policies"
BUCKET = "arn:aws:s3:::pngnoise"
KNOWN = {"Sid", "Effect", "Action", "Resource", "Condition"}


def statements(role: str) -> list[dict[str, Any]]:
    document = json.loads((POLICIES / f"{role}.json").read_text())
    assert document["Version"] == "2012-10-17"
    return list(document["Statement"])


def many(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def like(value: str, patterns: str | list[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in many(patterns))


def applies(statement: dict[str, Any], action: str, resource: str, said: str | None) -> bool:
    """``said``: what the request says of whatever the condition is about: a prefix, an access list."""
    condition = statement.get("Condition", {})
    assert set(condition) <= {"StringLike"}
    wanted = list(condition.get("StringLike", {}).values())
    meant = like(action, statement["Action"]) and like(resource, statement["Resource"])
    return meant and all(said is not None and like(said, patterns) for patterns in wanted)


def allowed(role: str, action: str, resource: str, said: str | None = None) -> bool:
    """Whether any statement allows it and none forbids it: what is not said is forbidden."""
    effects = {s["Effect"] for s in statements(role) if applies(s, action, resource, said)}
    return effects == {"Allow"}


MAY = [
    ("worker", "s3:GetObject", f"{BUCKET}/data/samples/patches/store.json", None),
    ("worker", "s3:PutObject", f"{BUCKET}/corpora/a/corpus.json", None),
    ("worker", "s3:PutObject", f"{BUCKET}/models/noise/versions/000001.json", None),
    ("worker", "s3:DeleteObject", f"{BUCKET}/corpora/a/corpus.json", None),
    ("worker", "s3:AbortMultipartUpload", f"{BUCKET}/exports/a.tar", None),
    ("worker", "s3:ListBucket", BUCKET, "models/"),
    ("worker", "s3:ListBucket", BUCKET, None),
    ("reader", "s3:GetObject", f"{BUCKET}/corpora/a/noisy/c/0/0/0/0/0", None),
    ("reader", "s3:ListBucket", BUCKET, "corpora/a/"),
]
CONFIGURATION = [
    "s3:DeleteBucket",
    "s3:PutBucketPolicy",
    "s3:DeleteBucketPolicy",
    "s3:PutBucketAcl",
    "s3:PutBucketVersioning",
    "s3:PutLifecycleConfiguration",
    "s3:PutReplicationConfiguration",
    "s3:PutBucketPublicAccessBlock",
    "s3:CreateBucket",
    "iam:CreateUser",
    "iam:PassRole",
    "sts:AssumeRole",
]
MAY_NOT = [
    ("worker", "s3:DeleteObject", f"{BUCKET}/models/noise/versions/000001.json", None),
    ("worker", "s3:DeleteObjectVersion", f"{BUCKET}/models/noise/champion.json", None),
    ("worker", "s3:GetObject", f"{BUCKET}-of-others/secret", None),
    ("worker", "s3:ListBucket", "arn:aws:s3:::other", None),
    ("worker", "s3:ListAllMyBuckets", "*", None),
    ("worker", "s3:PutObject", f"{BUCKET}/corpora/a/x", "public-read"),
    *(
        (role, action, f"{BUCKET}/corpora/a/x", None)
        for role in ("worker", "reader")
        for action in ("s3:PutObjectAcl",)
    ),
    *((role, action, BUCKET, None) for role in ("worker", "reader") for action in CONFIGURATION),
    ("reader", "s3:PutObject", f"{BUCKET}/corpora/a/corpus.json", None),
    ("reader", "s3:DeleteObject", f"{BUCKET}/corpora/a/corpus.json", None),
    *(
        ("reader", "s3:GetObject", f"{BUCKET}/{location}", None)
        for location in ("data/p/x", "models/m/x", "runs/x", "corporax")
    ),
    ("reader", "s3:ListBucket", BUCKET, None),
    *(("reader", "s3:ListBucket", BUCKET, prefix) for prefix in ("", "models/", "data/", "corporate/")),
]


@pytest.mark.parametrize("asked", MAY, ids=lambda asked: " ".join(map(str, asked)))
def test_what_a_role_may(asked: tuple[str, str, str, str | None]) -> None:
    assert allowed(*asked)


@pytest.mark.parametrize("asked", MAY_NOT, ids=lambda asked: " ".join(map(str, asked)))
def test_what_a_role_may_not(asked: tuple[str, str, str, str | None]) -> None:
    assert not allowed(*asked)


def test_the_files_say_what_is_looked_at_here_and_no_more() -> None:
    roles = {path.stem for path in POLICIES.glob("*.json")}
    assert roles == {"worker", "reader"}
    for role in roles:
        for statement in statements(role):
            assert set(statement) <= KNOWN  # no NotAction, NotResource or Principal, which turn meanings round
            assert "*" not in "".join(many(statement["Action"]))
            assert all(resource.startswith(BUCKET) for resource in many(statement["Resource"]))
        assert f"`{role}.json`" in (POLICIES / "README.md").read_text()
