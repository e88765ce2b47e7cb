"""Metrics of noise generators on real pairs: reference protocols, evaluation records, two-sample tests.

Belongs here: selecting pairs, running generators, computing metrics. Does not: metric formulas (``pngmodel.metrics``),
denoisers (``tasks.denoising``).
"""
