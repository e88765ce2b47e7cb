"""Training: one loop, two stages (PAE, then P-DiT)."""
