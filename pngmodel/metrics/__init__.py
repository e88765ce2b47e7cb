"""How close generated noise is to real noise, and how close a denoised image is to the clean one.

One file per metric family; :mod:`pngmodel.metrics.protocols` names them all. Scores of papers are
comparable only where bins, rounding and pooling agree, so every definition has its own name.
"""
