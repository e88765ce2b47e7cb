"""Timing of the product beside baselines: run one with ``python -m benchmarks.NAME``."""
