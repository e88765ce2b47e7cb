"""Denoisers: training on real and synthetic pairs, evaluation, benchmark submissions, estimated clean images.

Belongs here: everything that trains or runs a denoiser. Does not: denoiser networks (``pngmodel.denoisers``).
"""
