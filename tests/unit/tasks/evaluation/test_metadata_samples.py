"""Whole scenes on one side, every class on both, whatever cannot be split listed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.metadata_samples import held_out_scenes, splittable_classes

Named = list[tuple[str, str]]
samples = st.lists(
    st.tuples(st.sampled_from([f"camera {k}" for k in range(6)]), st.sampled_from([f"scene {k}" for k in range(9)])),
    min_size=8,
    max_size=120,
)


def test_what_cannot_be_split_is_listed() -> None:
    named = [("A", "1")] * 5 + [("A", "2")] * 5 + [("B", "1")] * 9 + [("C", "1"), ("C", "2")]
    found = splittable_classes([c for c, _ in named], [s for _, s in named], least=6)
    assert found.classes == ("A",)
    assert found.rows == tuple(range(10))
    assert found.skipped == (
        {"class": "B", "reason": "has only one scene (1), 9 samples"},
        {"class": "C", "reason": "has 2 samples, fewer than 6"},
    )


@given(samples, st.integers(0, 5))
def test_every_class_can_be_trained_and_scenes_are_whole(named: Named, seed: int) -> None:
    labels, scenes = [c for c, _ in named], [s for _, s in named]
    found = splittable_classes(labels, scenes, least=2)
    labels, scenes = [labels[k] for k in found.rows], [scenes[k] for k in found.rows]
    if not labels:
        return
    held = held_out_scenes(labels, scenes, 0.25, seed)
    assert held == held_out_scenes(labels[::-1], scenes[::-1], 0.25, seed)
    kept = Counter(c for c, s in zip(labels, scenes, strict=True) if s not in held)
    total = Counter(labels)
    assert set(kept) == set(total)
    assert all(kept[label] >= 0.4 * total[label] for label in total)


def test_every_class_is_tested_where_scenes_are_shared_by_all() -> None:
    named = [(camera, scene) for camera in "ABCD" for scene in "1234567" for _ in range(3)]
    picks = set()
    for seed in range(10):
        held = held_out_scenes([c for c, _ in named], [s for _, s in named], 0.25, seed)
        assert len(held) == 2  # 2 of 7 are the first that reach a quarter
        picks.add(tuple(sorted(held)))
    assert len(picks) > 3
