"""A GAN whose generator learns from sanitised gradients of discriminators that are trained on shards of the data."""
