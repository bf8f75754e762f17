"""Ghost clipping of models as they are published, small: norms and sums against ``vmap`` in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efsgd_jax.privacy import clipped_grad, clipping_plan

WORDS, CLASSES = 11, 3


def attend(x, heads, mask=None):
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(num_heads=heads)(y, y, mask=mask)
    y = nn.Dense(2 * x.shape[-1])(nn.LayerNorm()(x))
    return x + nn.Dense(x.shape[-1])(nn.gelu(y))


class VisionTransformer(nn.Module):
    """Patches, positions, two blocks, and the mean of the tokens."""

    @nn.compact
    def __call__(self, image):
        x = nn.Conv(8, (4, 4), strides=4, padding="VALID")(image)
        x = x.reshape(x.shape[0], -1, 8)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(2):
            x = attend(x, 2)
        return nn.Dense(CLASSES)(nn.LayerNorm()(x).mean(axis=1))


class UNet(nn.Module):
    """One level down and up, with skip connections and a condition that scales and shifts."""

    @nn.compact
    def __call__(self, image):
        condition = nn.silu(nn.Dense(8)(image.mean(axis=(1, 2))))
        skip = h = nn.Conv(8, (3, 3))(image)
        h = nn.silu(nn.GroupNorm(num_groups=2)(nn.Conv(8, (3, 3), strides=2)(h)))
        scale, shift = jnp.split(nn.Dense(16)(condition)[:, None, None], 2, axis=-1)
        h = nn.Conv(8, (3, 3))(nn.GroupNorm(num_groups=2)(h) * (1 + scale) + shift)
        h = nn.ConvTranspose(8, (2, 2), strides=(2, 2))(h)
        return nn.Conv(CLASSES, (3, 3))(jnp.concatenate([h, skip], axis=-1)).mean(axis=(1, 2))


class Recurrent(nn.Module):
    """An embedding and an LSTM."""

    @nn.compact
    def __call__(self, words):
        x = nn.Embed(WORDS, 6)(words)
        cell = nn.OptimizedLSTMCell(5)
        start = jnp.zeros((x.shape[0], 5), x.dtype)
        return nn.Dense(CLASSES)(nn.RNN(cell)(x, initial_carry=(start, start))[:, -1])


class LanguageModel(nn.Module):
    """A causal block whose embedding is also the matrix of the logits."""

    @nn.compact
    def __call__(self, words):
        table = nn.Embed(WORDS, 8)
        x = table(words)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = attend(x, 2, mask=nn.make_causal_mask(words))
        return table.attend(nn.LayerNorm()(x))


def problem(name):
    """A loss of one example, parameters, and a batch of five."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5, 8, 8, 2)) * rng.choice([0.3, 3.0], size=(5, 1, 1, 1))
    words = rng.integers(WORDS, size=(5, 7))
    labels = rng.integers(CLASSES, size=5)
    module = {"ViT": VisionTransformer, "U-Net": UNet, "LSTM": Recurrent, "GPT": LanguageModel}[name]()
    x = words if name in ("LSTM", "GPT") else images

    def loss(params, example, key):
        x, y = example
        logits = module.apply(params, x[None])[0]
        if name == "GPT":  # the next word
            logits, y = logits[:-1], x[1:]
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, y)), None

    return loss, jax.jit(module.init)(jax.random.key(0), jnp.asarray(x[:1])), (x, labels)


@pytest.mark.parametrize("name", ["ViT", "U-Net", "LSTM", "GPT"])
def test_models_as_they_are_published_equal_vmap_in_float64(name):
    loss, params, batch = problem(name)

    def clipped(method, dtype):
        def cast(x):
            return jnp.asarray(x, dtype if np.issubdtype(np.asarray(x).dtype, np.floating) else None)

        mine, data = jax.tree.map(cast, (params, batch))
        f = clipped_grad(loss, 1.0, method=method, outer_l2_norm_clip=jnp.inf)
        return jax.jit(f)(mine, data, jax.random.split(jax.random.key(0), 5))

    def error(got, want):
        return float(optax.tree.norm(optax.tree.sub(got, want)) / optax.tree.norm(want))

    with jax.enable_x64(True):
        want, exact, single = clipped("vmap", jnp.float64), clipped("ghost", jnp.float64), clipped("ghost", jnp.float32)
        peer = clipped("vmap", jnp.float32)
    assert np.any(want.clipped)
    assert error(exact.clipped_sum, want.clipped_sum) <= 1e-10
    # In float32 rows are clipped to a norm that is shorter by the margin for rounding.
    assert error(single.clipped_sum, peer.clipped_sum) <= 1e-5
    for got, tolerance in ((exact, 1e-10), (single, 1e-5)):
        assert error(got.outer_sum, want.outer_sum) <= tolerance
        np.testing.assert_allclose(got.l2_norms, want.l2_norms, rtol=tolerance)


def test_no_dense_layer_over_tokens_is_left_to_vmap():
    loss, params, batch = problem("ViT")
    plan = clipping_plan(loss, params, jax.tree.map(lambda x: x[0], batch), jax.random.key(0))
    kernels = {how for path, how in plan.items() if path.endswith("['kernel']")}
    assert kernels == {"patches", "vectors", "outer product"}
