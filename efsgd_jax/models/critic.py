"""Networks of ``sanitized_gan``, after GS-WGAN (arXiv 2006.08265): three strided 5x5 convolutions and a linear head.

The method divides the training images into disjoint shards, and each shard has its own networks. ``Critic`` is a
shard's discriminator; GS-WGAN calls it a critic.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.encoder import Posterior
from efsgd_jax.models.layers import Conv, leaky_relu

# Number of convolutions.
STAGES = 3
# With a Bernoulli prior, an encoder's code u becomes the latent sigmoid(SHARPNESS u): near 0 or 1 for most u ~ N(0, 1).
SHARPNESS = 4.0


class StridedTrunk(nn.Module):
    """``[B, S, S, C] -> [B, features]``; each convolution halves the side and doubles the channels."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(STAGES):
            x = leaky_relu(Conv(self.width * 2**i, kernel_size=5, stride=2)(x))
        return x.reshape(x.shape[0], -1)


class Critic(nn.Module):
    """``D(x, y) = psi(phi(x)) + <embed(y), phi(x)>`` for image x and label y (projection, arXiv 1802.05637): ``[B]``.

    phi is the trunk, psi a linear function. There is no normalisation: only the gradient penalty limits the slope of D,
    whereas the published code has spectral normalisation as well.
    """

    spec: ImageSpec
    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        phi = StridedTrunk(self.width)(images)
        scale = nn.initializers.normal(phi.shape[-1] ** -0.5)
        embedding = nn.Embed(self.spec.num_classes, phi.shape[-1], embedding_init=scale)(labels)
        return nn.Dense(1)(phi)[:, 0] + jnp.sum(embedding * phi, axis=-1)


class Classifier(nn.Module):
    """The auxiliary classifier, which predicts the label of an image: logits ``[B, num_classes]``."""

    spec: ImageSpec
    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(self.spec.num_classes)(StridedTrunk(self.width)(images))


class ShardEncoder(nn.Module):
    """``q(u | x)``, a diagonal Gaussian over a code u of image x; ``latent`` is the length of u and of the latent."""

    latent: int
    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array) -> Posterior:
        h = StridedTrunk(self.width)(images)
        log_variance = nn.Dense(self.latent, kernel_init=nn.initializers.normal(1e-3))(h)
        return Posterior(nn.Dense(self.latent)(h), 8.0 * jnp.tanh(log_variance / 8.0))  # exp never overflows


def code_to_latent(u: jax.Array, prior: str) -> jax.Array:
    """Converts an encoder's code u, which is close to N(0, I), to a latent of the generator.

    Args:
      u: codes, ``[n, latent]``.
      prior: ``bernoulli`` or ``normal``; see ``Hyperparameters.latent_prior``.
    """
    return jax.nn.sigmoid(SHARPNESS * u) if prior == "bernoulli" else u


def sample_latent(key: jax.Array, n: int, latent: int, prior: str) -> jax.Array:
    """Samples latents ``[n, latent]`` from the prior: independent values 0 or 1 with equal probability, or N(0, I)."""
    if prior == "bernoulli":
        return jax.random.bernoulli(key, 0.5, (n, latent)).astype(jnp.float32)
    return jax.random.normal(key, (n, latent))
