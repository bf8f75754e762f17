"""A denoiser that has memorised one class, and a policy that notices it."""

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.alternatives import mixtures
from efsgd_jax.models.denoiser import Denoiser
from efsgd_jax.models.guided import Policy

CLASSES = 4
SCALE = 2.5


def policy_of(**options):
    defaults = {"scale": SCALE, "threshold": 1.0, "anchor_from": 1.0, "anchor_to": 2.0}
    return Policy(**defaults | {"alternatives": mixtures(jnp.eye(CLASSES))} | options)


def network_of(dtype=jnp.float32):
    """A random U-Net, to whose predictions the last class adds a large image."""
    spec = ImageSpec(8, 1, CLASSES)
    network = Denoiser(spec, width=8, blocks=1, levels=2)

    def inputs(x, sigma, condition):
        return x, jnp.log(sigma), jnp.full_like(x, 0.5), condition, jnp.full(len(x), CLASSES)

    images = jnp.zeros((1, *spec.shape))
    params = network.init(jax.random.key(0), *inputs(images, jnp.ones(1), jnp.zeros((1, CLASSES))))
    params = jax.tree.map(lambda p: p + 0.05 * jax.random.normal(jax.random.key(1), p.shape), params)
    memorised = 3 * jax.random.normal(jax.random.key(2), spec.shape)

    def denoiser(x, sigma, condition):
        cast = jax.tree.map(lambda a: a.astype(dtype), (params, x, sigma, condition))
        found = network.apply(cast[0], *inputs(*cast[1:]))
        return found + cast[3][:, -1].reshape(-1, 1, 1, 1) ** 4 * memorised.astype(dtype)

    return denoiser, spec.shape


def noise_of(shape, count):
    return jax.random.normal(jax.random.key(3), (count, *shape))
