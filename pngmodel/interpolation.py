"""Noise between two references: prompts between their prompts."""

from __future__ import annotations

from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.interface import Prompts
from pngmodel.statistics import whitening

_CURVE_PREFIXES = ("curve_", "")  # as the learned model and as the baselines call their whitening curves
_KNOTS, _VALUES = "knots", "values"


def interpolate(prompts_a: Prompts, prompts_b: Prompts, weight: float) -> dict[str, Tensor]:
    """Prompts between two entries that one generator's ``prompts()`` returned; give them to its ``generate()``.

    Args:
        prompts_a: what is returned at weight 0, exactly.
        prompts_b: what is returned at weight 1, exactly.
        weight: share of ``prompts_b``, in [0, 1].

    Whitening curves are mixed at equal intensities (:func:`pngmodel.statistics.whitening.interpolated`), all else value
    by value:
    codes stay shares that sum to 1, covariances stay covariances. The covariances of the model's own draws
    (``sampled_*``) are mixed too, not measured anew, so between the ends the calibration is approximate.

    Example:
        >>> a, b = (generator.prompts(*pair)[0] for pair in (quiet, loud))
        >>> noisy = generator.generate(clean, prompts=interpolate(a, b, 0.5), seed=1)

    Raises:
        UserError: a weight outside [0, 1], or prompts that are not of one generator and number of channels.
    """
    if not 0 <= weight <= 1:
        raise UserError(f"interpolate: weight is {weight}; give a share of the second prompts, 0 to 1")
    if different := sorted(set(prompts_a) ^ set(prompts_b)):
        raise UserError(f"interpolate: only one of the two has {different}; give prompts of one and the same generator")
    curves = {prefix for prefix in _CURVE_PREFIXES if {prefix + _KNOTS, prefix + _VALUES} <= set(prompts_a)}
    of_curves = {prefix + name for prefix in curves for name in (_KNOTS, _VALUES)}
    for name, a in prompts_a.items():
        # The number of knots is each reference's own.
        shapes = [(x.shape[0], *x.shape[2:]) if name in of_curves else tuple(x.shape) for x in (a, prompts_b[name])]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"interpolate: {name!r} has shapes {tuple(a.shape)} and {tuple(prompts_b[name].shape)}; give prompts "
                "of one generator, both of colour or both of grey references"
            )
    if weight in (0, 1):
        return {name: value.clone() for name, value in (prompts_b if weight else prompts_a).items()}
    mixed = {name: a.lerp(prompts_b[name], weight) for name, a in prompts_a.items() if name not in of_curves}
    for prefix in curves:
        a_curves, b_curves = ({name: p[prefix + name] for name in (_KNOTS, _VALUES)} for p in (prompts_a, prompts_b))
        curve = whitening.interpolated(a_curves, b_curves, weight)
        mixed |= {prefix + name: value for name, value in curve.items()}
    return mixed
