"""Interpolation between the prompts of two references."""

from __future__ import annotations

from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.interface import Prompts
from pngmodel.statistics import whitening

_CURVE_PREFIXES = ("curve_", "")  # prefixes of whitening curves: of the learned model, and of the baselines
_KNOTS, _VALUES = "knots", "values"


def interpolate(prompts_a: Prompts, prompts_b: Prompts, weight: float) -> dict[str, Tensor]:
    """Interpolate between two prompts of the same generator; pass the result to its ``generate()``.

    Whitening curves are interpolated at equal intensities (:func:`pngmodel.statistics.whitening.interpolated`), all
    other tensors linearly: codes still sum to 1, and covariances stay valid. The covariances of samples of the model
    (``sampled_*``) are interpolated instead of measured, so the calibration is approximate for weights within (0, 1).

    Args:
        prompts_a: Prompts at weight 0.
        prompts_b: Prompts at weight 1.
        weight: Weight of ``prompts_b``, in [0, 1].

    Example:
        >>> a, b = (generator.prompts(*pair)[0] for pair in (quiet, loud))
        >>> noisy = generator.generate(clean, prompts=interpolate(a, b, 0.5), seed=1)

    Raises:
        UserError: The weight is outside [0, 1], or the prompts differ in generator or number of channels.
    """
    if not 0 <= weight <= 1:
        raise UserError(f"interpolate: weight is {weight}; expected a value in [0, 1]")
    if different := sorted(set(prompts_a) ^ set(prompts_b)):
        raise UserError(f"interpolate: only one of the prompts has {different}; use prompts of the same generator")
    curves = {prefix for prefix in _CURVE_PREFIXES if {prefix + _KNOTS, prefix + _VALUES} <= set(prompts_a)}
    of_curves = {prefix + name for prefix in curves for name in (_KNOTS, _VALUES)}
    for name, a in prompts_a.items():
        # The number of knots may differ between references.
        shapes = [(x.shape[0], *x.shape[2:]) if name in of_curves else tuple(x.shape) for x in (a, prompts_b[name])]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"interpolate: {name!r} has shapes {tuple(a.shape)} and {tuple(prompts_b[name].shape)}; use prompts "
                "of the same generator, both of colour or both of grey references"
            )
    if weight in (0, 1):
        return {name: value.clone() for name, value in (prompts_b if weight else prompts_a).items()}
    mixed = {name: a.lerp(prompts_b[name], weight) for name, a in prompts_a.items() if name not in of_curves}
    for prefix in curves:
        a_curves, b_curves = ({name: p[prefix + name] for name in (_KNOTS, _VALUES)} for p in (prompts_a, prompts_b))
        curve = whitening.interpolated(a_curves, b_curves, weight)
        mixed |= {prefix + name: value for name, value in curve.items()}
    return mixed
