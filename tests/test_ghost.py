"""Ghost clipping against per-example gradients in float64, on random losses, and what it does with strange ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from random_models import CHANNELS, CLASSES, SIDE, random_loss

from efsgd_jax.privacy import clipped_grad


def batch_of(rng, size):
    scale = rng.choice([0.3, 1.0, 3.0], size=(size, 1, 1, 1))
    return rng.normal(size=(size, SIDE, SIDE, CHANNELS)) * scale, rng.integers(CLASSES, size=size)


def test_random_losses_equal_vmap_in_float64(architecture):
    loss_with, init, made_of = random_loss(architecture)
    images, labels = batch_of(np.random.default_rng(architecture), 4)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(architecture), 4)
        variables = jax.jit(init)(jax.random.key(architecture))

        def sums(method, dtype):
            constants, x = jax.tree.map(lambda x: jnp.asarray(x, dtype), (variables, images))
            params = constants.pop("params")
            loss = loss_with(constants)

            @jax.jit
            def clipped(clip):
                f = clipped_grad(loss, clip, method=method, outer_l2_norm_clip=jnp.inf)
                return f(params, (x, jnp.asarray(labels)), keys)

            return clipped

        by_vmap = sums("vmap", jnp.float64)
        clip = jnp.median(by_vmap(1.0).l2_norms)  # some are clipped and some are not
        want, got, single = by_vmap(clip), sums("ghost", jnp.float64)(clip), sums("ghost", jnp.float32)(clip)

    def error(got, want):
        return float(optax.tree.norm(optax.tree.sub(got, want)) / optax.tree.norm(want))

    def errors(got):
        norms = float(jnp.max(jnp.abs(got.l2_norms / want.l2_norms - 1)))
        return norms, error(got.clipped_sum, want.clipped_sum), error(got.outer_sum, want.outer_sum)

    assert max(errors(got)) <= 1e-10, made_of
    # Noise of another dtype is other noise. Some losses are sensitive to rounding, whatever the method.
    if "noise" not in made_of and max(errors(single)) > 1e-5:
        with jax.enable_x64(True):
            by_vmap = sums("vmap", jnp.float32)(clip)
        assert max(errors(single)) <= 2 * max(errors(by_vmap)), made_of
