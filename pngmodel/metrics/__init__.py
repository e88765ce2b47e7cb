"""Metrics of generated noise against real noise, and of denoised images against clean ones.

There is one file per metric family; :mod:`pngmodel.metrics.protocols` lists all noise metrics. Scores of papers are
comparable only if bins, rounding and pooling are equal, so every definition has its own name.
"""
