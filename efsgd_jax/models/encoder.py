"""The encoder of the reconstruction loss."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.discriminator import ConvTrunk


class Posterior(NamedTuple):
    """A diagonal Gaussian over the latent: ``mean`` and ``log_variance``, both ``[B, latent]``."""

    mean: jax.Array
    log_variance: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        return self.mean + jnp.exp(0.5 * self.log_variance) * jax.random.normal(key, self.mean.shape)

    def kl_to_prior(self) -> jax.Array:
        """``KL(N(mean, variance) || N(0, I))`` in nats, ``[B]``."""
        terms = jnp.exp(self.log_variance) + jnp.square(self.mean) - 1.0 - self.log_variance
        return 0.5 * jnp.sum(terms, axis=-1)


class Encoder(nn.Module):
    """``q(z | x, y)``, for latent z, image x and label y: convolutions and two linear heads.

    With the generator as decoder it is a conditional variational autoencoder.

    Attributes:
      spec: shape of the images and number of classes.
      latent: number of dimensions of z.
      width: channels of the first convolution; each further one has twice as many.
      max_width: largest number of channels.
    """

    spec: ImageSpec
    latent: int
    width: int = 16
    max_width: int = 128

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array) -> Posterior:
        h = ConvTrunk(self.spec, self.width, self.max_width)(images)
        h = jnp.concatenate([h, jax.nn.one_hot(labels, self.spec.num_classes, dtype=h.dtype)], axis=-1)
        mean = nn.Dense(self.latent, kernel_init=nn.initializers.lecun_normal())(h)
        log_variance = nn.Dense(self.latent, kernel_init=nn.initializers.normal(1e-3))(h)
        return Posterior(mean, 8.0 * jnp.tanh(log_variance / 8.0))  # exp never overflows
