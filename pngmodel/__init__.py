"""Models of real camera noise: learn noise from image pairs, and generate it on any clean image.

>>> from pngmodel import NoiseGenerator
>>> noisy = NoiseGenerator.from_pretrained().generate(clean, reference=(real_noisy, real_clean), seed=1)
"""

from pngmodel.errors import IntegrityError, NonFiniteError, UserError
from pngmodel.generator import NoiseGenerator
from pngmodel.interpolation import interpolate

__all__ = ["IntegrityError", "NoiseGenerator", "NonFiniteError", "UserError", "interpolate"]
