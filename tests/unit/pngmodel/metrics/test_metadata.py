"""The classifiers of metadata: equal sizes, figures against NumPy, what they can and cannot learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pngmodel.metrics import metadata
from pngmodel.network.model import Precision

CPU = Precision(torch.device("cpu"), torch.float32)
LABELS = torch.arange(60) % 3
TRAIN, HELD_OUT = range(45), range(45, 60)


@pytest.mark.parametrize("features", [40, 120, 520, 3000])
@pytest.mark.parametrize("classes", [2, 10, 40])
def test_both_networks_have_as_many_parameters(features: int, classes: int) -> None:
    parameters = metadata.parameters_of(metadata.PromptHead(features, 64, classes))
    assert parameters == features * 64 + 64 + 64 * classes + classes
    network = metadata.noise_head(parameters, classes)
    assert abs(metadata.parameters_of(network) / parameters - 1) < 0.05
    assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, classes)


def test_too_few_parameters() -> None:
    with pytest.raises(ValueError, match="use more hidden units"):
        metadata.noise_head(100, 3)


def test_figures_against_numpy() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((200, 7)).astype(np.float32), rng.integers(0, 6, 200)  # class 6 is never true
    scored = metadata.Scored(torch.from_numpy(logits), torch.from_numpy(labels))
    order = np.argsort(-logits, axis=1)
    assert metadata.top_accuracy(scored) == pytest.approx(np.mean(order[:, 0] == labels))
    assert metadata.top_accuracy(scored, 3) == pytest.approx(
        np.mean([t in o[:3] for t, o in zip(labels, order, strict=True)])
    )
    assert metadata.top_accuracy(scored, 99) == 1
    allowed = rng.random((200, 7)) < 0.5
    allowed[np.arange(200), labels] = True
    masked = np.where(allowed, logits, -np.inf).argmax(1)
    found = metadata.top_accuracy(scored, allowed=torch.from_numpy(allowed))
    assert found == pytest.approx(np.mean(masked == labels))
    recalls = [np.mean(order[labels == k, 0] == k) for k in range(6)]
    assert metadata.balanced_accuracy(scored) == pytest.approx(np.mean(recalls))
    counts = np.zeros((7, 7), int)
    np.add.at(counts, (labels, order[:, 0]), 1)
    np.testing.assert_array_equal(metadata.confusion(scored, 7), counts)


@pytest.mark.parametrize("told", [True, False])
def test_prompts_that_tell_the_class_and_some_that_do_not(told: bool) -> None:
    x = torch.randn(60, 12, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 12)
    if told:
        x[:, 4] += 4 * LABELS * x[:, 4].std()
    budget = metadata.Budget(steps=400, batch=16, hidden=16, learning_rate=5e-3)
    scored = metadata.train_on_prompts(x, LABELS, TRAIN, HELD_OUT, 3, budget, 0)
    assert scored.labels.tolist() == LABELS[45:].tolist()
    accuracy = metadata.top_accuracy(scored)
    assert accuracy > 0.8 if told else accuracy <= 0.7
    again = metadata.train_on_prompts(x, LABELS, TRAIN, HELD_OUT, 3, budget, 0)
    assert torch.equal(scored.logits, again.logits)
    other = metadata.train_on_prompts(x, LABELS, TRAIN, HELD_OUT, 3, budget, 1)
    assert not torch.equal(scored.logits, other.logits)


def test_noise_of_three_correlations_is_told_apart() -> None:
    """All of one strength: white, smoothed in x, smoothed in y."""
    noise = torch.randn(60, 3, 65, 65, generator=torch.Generator().manual_seed(0))
    noise[LABELS == 1, :, :, 1:] = (noise[LABELS == 1, :, :, 1:] + noise[LABELS == 1, :, :, :-1]) / 2**0.5
    noise[LABELS == 2, :, 1:] = (noise[LABELS == 2, :, 1:] + noise[LABELS == 2, :, :-1]) / 2**0.5
    noise = (7 * noise[..., 1:, 1:]).half()
    budget = metadata.Budget(steps=200, batch=16, learning_rate=5e-3)
    scored = metadata.train_on_noise(noise, LABELS, TRAIN, HELD_OUT, 3, budget, 0, 4000, CPU)
    assert metadata.top_accuracy(scored) >= 0.9
    before = torch.random.get_rng_state()
    again = metadata.train_on_noise(noise, LABELS, TRAIN, HELD_OUT, 3, budget, 0, 4000, CPU)
    assert torch.equal(scored.logits, again.logits)
    assert torch.equal(before, torch.random.get_rng_state())
