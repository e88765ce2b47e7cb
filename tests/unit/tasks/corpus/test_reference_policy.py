"""Policies of choosing references: what may be chosen, how often, and that nothing but the sample decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from pngmodel.errors import UserError
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.corpus.reference_policy import ReferencePolicy, ReferenceSelector
from tasks.datasets.clean_images import CleanImage
from tasks.datasets.reference_pairs import Reference, ReferenceSource

Make = Callable[..., CorpusParameters]
SAMPLES = 20_000


def reference(name: str, camera: str | None, split: str = "train") -> Reference:
    return Reference(name, camera, 100, "CC0", name, split, "d", "s", name, 32, 32)


def clean(name: str, camera: str | None = None) -> CleanImage:
    return CleanImage(name, 32, 32, 3, "uint8", name, "CC0", 0, camera)


# 6 of GP, 3 of S6, 1 of IP, 2 without a camera; one each of GP and S6 for validation
REFERENCES = ReferenceSource(
    tuple(
        [reference(f"gp{k}", "GP", "validation" if k == 5 else "train") for k in range(6)]
        + [reference(f"s6{k}", "S6", "validation" if k == 2 else "train") for k in range(3)]
        + [reference("ip0", "IP"), reference("none0", None), reference("none1", None)]
    ),
    lambda k: pytest.fail("no images are needed to choose"),
)


def drawn(
    reference_policy: ReferencePolicy, weights: dict[str, float] | None = None, split: str | None = None
) -> Counter[int]:
    """How often each reference is chosen."""
    policy = ReferenceSelector(REFERENCES, reference_policy, split, weights)
    return Counter(policy.reference((0, f"image{k}", 32 * (k % 7), 0, k % 3), clean("a")) for k in range(SAMPLES))


def shares_of(counts: Counter[int]) -> Counter[str]:
    """The same by camera."""
    return Counter(str(REFERENCES.references[k].camera) for k in counts.elements())


def agrees(counts: list[int], shares: list[float]) -> bool:
    """Not improbable (1 in 10,000) under these shares."""
    return bool(chisquare(counts, [SAMPLES * share / sum(shares) for share in shares]).pvalue > 1e-4)


def test_uniform_draws_every_reference_alike() -> None:
    counts = drawn("uniform")
    assert agrees([counts[k] for k in range(12)], [1] * 12)


def test_cameras_are_drawn_alike_and_then_their_references() -> None:
    counts = drawn("cameras")
    cameras = shares_of(counts)
    assert agrees([cameras[c] for c in ("GP", "S6", "IP", "None")], [1] * 4)
    assert agrees([counts[k] for k in range(12)], [1 / 6] * 6 + [1 / 3] * 3 + [1, 1 / 2, 1 / 2])


@pytest.mark.parametrize("reference_policy", ["cameras", "uniform"])
def test_weights_are_shares_of_cameras(reference_policy: ReferencePolicy) -> None:
    counts = drawn(reference_policy, {"GP": 1, "S6": 3, "IP": 0.5})
    assert set(shares_of(counts)) == {"GP", "S6", "IP"}
    assert agrees([counts[k] for k in range(10)], [1 / 6] * 6 + [1] * 3 + [1 / 2])


def test_a_weight_of_0_leaves_a_camera_out() -> None:
    assert set(shares_of(drawn("cameras", {"GP": 0, "S6": 1}))) == {"S6"}
    assert ReferenceSelector(REFERENCES, "cameras", None, {"GP": 0, "S6": 1}).usable == [6, 7, 8]


def test_only_references_of_the_split() -> None:
    assert set(drawn("uniform", split="validation")) == {5, 8}
    with pytest.raises(UserError, match=r"weights: no reference of camera \['IP'\]; there are GP, S6"):
        ReferenceSelector(REFERENCES, "cameras", "validation", {"IP": 1})


def test_nothing_but_the_sample_decides() -> None:
    identities = [(0, f"i{k}", k, 0, d) for k in range(50) for d in range(3)]
    for reference_policy, weights in (("uniform", None), ("cameras", {"GP": 2.0, "S6": 1.0}), ("camera", None)):
        policy, again = (ReferenceSelector(REFERENCES, reference_policy, None, weights) for _ in range(2))  # type: ignore[arg-type]
        first = {i: policy.reference(i, clean("a", "GP")) for i in identities}
        backwards = {i: again.reference(i, clean("a", "GP")) for i in reversed(identities)}
        assert first == backwards


def test_camera_draws_from_the_images_own() -> None:
    policy = ReferenceSelector(REFERENCES, "camera", None, None)
    found = Counter(policy.reference((0, k), clean("a", "S6")) for k in range(3000))
    assert set(found) == {6, 7, 8}
    assert chisquare(list(found.values())).pvalue > 1e-4
    for camera in (None, "XY"):
        with pytest.raises(UserError, match=r"'a' has camera .* of which there is no reference.*GP, IP, None, S6"):
            policy.reference((0, 1), clean("a", camera))


def test_own_is_the_reference_of_that_name() -> None:
    policy = ReferenceSelector(REFERENCES, "own", None, None)
    assert policy.reference((0, 1), clean("s61")) == 7
    assert policy.reference((0, 2), clean("s61_clean.png")) == 7
    with pytest.raises(UserError, match="0 references are called 'other'"):
        policy.reference((0, 1), clean("other"))
    twice = ReferenceSource((reference("a", "GP"), reference("a", "S6")), REFERENCES.read)
    with pytest.raises(UserError, match="2 references are called 'a'"):
        ReferenceSelector(twice, "own", None, None).reference((0, 1), clean("a"))


def test_a_policy_that_cannot_serve_every_image_stops_before_anything_is_written(
    parameters: Make, patches: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has camera None"):
        plan_corpus(parameters(tmp_path / "c", reference_policy="camera"))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": {"GP": -1.0}}, "must be numbers of 0 or more"),
        ({"weights": {"GP": 0.0}}, "not all 0"),
        ({"weights": {"GP": float("nan")}}, "weights"),
        ({"weights": {"GP": float("inf")}}, "weights"),
        ({"weights": {}}, "at least one camera"),
        ({"weights": {"GP": 1.0}, "reference_policy": "own"}, "requires at least one camera"),
    ],
)
def test_weights_are_checked(parameters: Make, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        parameters(tmp_path / "c", **change)
