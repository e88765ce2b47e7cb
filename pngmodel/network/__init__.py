"""Networks of PNG: prompt autoencoder, prompt blocks, P-DiT, consistency training."""
