"""Denoisers: train on real and synthetic pairs, evaluate, submit to benchmarks, estimate clean images.

Belongs here: everything that trains or runs a denoiser. Does not: denoiser networks (``pngmodel.denoisers``).
"""
