"""Training loop and objectives: prompt autoencoder (PAE), prompt DiT (P-DiT) and denoisers."""
