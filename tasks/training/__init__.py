"""Training of noise models and baselines from patch stores.

Belongs here: training data, training runs, published bundles. Does not: networks and losses (``pngmodel``), denoisers
(``tasks.denoising``).
"""
