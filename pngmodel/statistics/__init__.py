"""Noise statistics: whitening curves, spectra, correlations, normalisation."""
