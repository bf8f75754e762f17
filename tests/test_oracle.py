"""Clipped sums against jax-privacy's, on random models, with masks and NaN."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax_privacy import clipping as oracle

from efsgd_jax.privacy import clipped_grad
from efsgd_jax.privacy.rounding import margin

SEEDS = range(3)


def flax_model(rng):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(rng.integers(1, 3)):
                kernel = int(rng.integers(1, 4))
                x = nn.Conv(int(rng.integers(2, 6)), (kernel, kernel), strides=int(rng.integers(1, 3)))(x)
                x = nn.GroupNorm(num_groups=1)(nn.silu(x))
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    state = rng.bit_generator.state  # the sizes are drawn again each time that the model is traced

    def traced(f):
        def call(*args):
            rng.bit_generator.state = state
            return f(*args)

        return call

    net = Net()
    return traced(net.init), traced(net.apply)


def haiku_model(rng):
    sizes = [*rng.integers(2, 9, size=rng.integers(1, 4)).tolist(), 3]
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP(sizes, activation=jnp.tanh)(hk.Flatten()(x))))
    return net.init, net.apply


def hand_written_model(rng):
    width = int(rng.integers(2, 9))

    def init(key, x):
        a, b = jax.random.split(key)
        size = int(np.prod(x.shape[1:]))
        return {"in": jax.random.normal(a, (size, width)), "out": [jax.random.normal(b, (width, 3)), jnp.zeros(3)]}

    def apply(params, x):
        hidden = jnp.sin(x.reshape(x.shape[0], -1) @ params["in"])
        return hidden @ params["out"][0] + params["out"][1]

    return init, apply


@pytest.mark.parametrize(
    ("model", "seed"),
    [
        pytest.param(model, seed, marks=[pytest.mark.slow] * (model is haiku_model and seed > 0))
        for model in (flax_model, haiku_model, hand_written_model)
        for seed in SEEDS
    ],
)
def test_clipped_sums_equal_jax_privacy(model, seed):
    microbatch_size = (None, 3, 4)[seed]  # 4 does not divide the batch, which only we allow
    rng = np.random.default_rng(seed)
    init, apply = model(rng)
    batch = 6
    x = rng.normal(size=(batch, 6, 6, 2)).astype(np.float32) * rng.choice([0.1, 1.0, 10.0], size=(batch, 1, 1, 1))
    x[1, 0, 0, 0] = np.nan  # in every activation, hence in every gradient
    y = rng.integers(3, size=batch)
    mask = rng.random(batch) < 0.7
    mask[:2] = True
    params = init(jax.random.key(seed), x)
    x, y, clip = jnp.asarray(x, jnp.float32), jnp.asarray(y), float(rng.choice([0.1, 1.0, 5.0]))

    def loss_of_batch(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y).sum()

    shorter = clip / (1 + margin(params, batch))  # as ours are, for rounding
    ours = jax.jit(
        clipped_grad(
            lambda p, example, key: (loss_of_batch(p, example[0][None], example[1][None]), None),
            clip,
            microbatch_size=microbatch_size,
        )
    )(params, (x, y), jax.random.split(jax.random.key(0), batch), jnp.asarray(mask))
    theirs, aux = jax.jit(
        oracle.clipped_grad(
            loss_of_batch, l2_clip_norm=shorter, batch_argnums=(1, 2), microbatch_size=3 if microbatch_size else None,
            return_grad_norms=True, return_values=True,
        )
    )(params, x, y, is_padding_example=jnp.asarray(~mask))  # fmt: skip

    difference = optax.tree.norm(optax.tree.sub(ours.clipped_sum, theirs))
    assert float(difference) <= 1e-6 * float(optax.tree.norm(theirs))
    kept = mask & np.asarray(ours.finite)
    assert not ours.finite[1]
    assert kept.sum() >= 1
    np.testing.assert_allclose(ours.l2_norms[kept], aux.grad_norms[kept], rtol=1e-5)
    np.testing.assert_allclose(ours.losses[kept], aux.values[kept], rtol=1e-5, atol=1e-7)
