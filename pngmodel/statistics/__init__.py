"""Noise statistics: whitening curves, spectra, correlations, and the units of the model."""
