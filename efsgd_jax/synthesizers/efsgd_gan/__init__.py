"""A conditional GAN and VAE in one, trained with error-feedback SGD."""
