"""Ghost clipping against per-example gradients in float64, on random losses, and what it does with strange ones."""

import functools
import os

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_models import CHANNELS, CLASSES, SIDE, random_loss

from efsgd_jax.privacy import clipped_grad, clipping_plan
from efsgd_jax.privacy.rounding import margin

# As without ``conftest.py``, which is about the CPU's compiler.
USERS = {"xla_cpu_use_fusion_emitters": True} if "fusion_emitters" in os.environ["XLA_FLAGS"] else {}


def batch_of(rng, size):
    scale = rng.choice([0.3, 1.0, 3.0], size=(size, 1, 1, 1))
    return rng.normal(size=(size, SIDE, SIDE, CHANNELS)) * scale, rng.integers(CLASSES, size=size)


def test_random_losses_equal_vmap_in_float64(architecture):
    loss_with, init, made_of = random_loss(architecture)
    images, labels = batch_of(np.random.default_rng(architecture), 4)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(architecture), 4)
        variables = jax.jit(init, compiler_options=USERS)(jax.random.key(architecture))

        def sums(method, dtype, **options):
            constants, x = jax.tree.map(lambda x: jnp.asarray(x, dtype), (variables, images))
            params = constants.pop("params")
            loss = loss_with(constants)

            @functools.partial(jax.jit, compiler_options=options)
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
    # Noise of another dtype is other noise. Some losses are sensitive to rounding, whatever the method: that of the
    # programs that users have, not of those that the tests compile faster.
    if "noise" not in made_of and max(errors(single)) > 1e-5:
        with jax.enable_x64(True):
            single, by_vmap = (sums(method, jnp.float32, **USERS)(clip) for method in ("ghost", "vmap"))
        assert max(errors(single)) <= max(1e-5, 2 * max(errors(by_vmap))), made_of


def linear_loss(params, example, key):
    x, y = example
    return jnp.sum(jnp.square(x @ params["w"] + params["b"] - y)), None


LINEAR = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0]]), "b": jnp.array([0.1, -0.1]), "unused": jnp.ones(2)}


def linear_batch(size):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(size, n)), jnp.float32) for n in (3, 2))
    return (x, y), jax.random.split(jax.random.key(0), size)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_a_bad_example_and_padding_contribute_nothing(bad):
    (x, y), keys = linear_batch(6)
    mask = jnp.array([1, 1, 1, 1, 0, 1], bool)
    got = clipped_grad(linear_loss, 0.5, method="ghost", outer_l2_norm_clip=jnp.inf)(
        LINEAR, (x.at[2, 0].set(bad).at[4].set(jnp.nan), y), keys, mask
    )
    good = np.array([0, 1, 3, 5])
    want = clipped_grad(linear_loss, 0.5, method="vmap", outer_l2_norm_clip=jnp.inf)(
        LINEAR, (x[good], y[good]), keys[good]
    )
    chex.assert_trees_all_close(got.clipped_sum, want.clipped_sum, rtol=1e-5)
    chex.assert_trees_all_close(got.outer_sum, want.outer_sum, rtol=1e-5)
    np.testing.assert_array_equal(got.finite, np.arange(6) != 2)
    assert float(jnp.abs(got.clipped_sum["unused"]).max()) == 0


@pytest.mark.parametrize(("x_scale", "d_scale"), [(1e-24, 1e18), (1e18, 1e-24), (1e-30, 1e18), (1e-37, 1e19)])
def test_numbers_whose_squares_vanish_are_measured_all_the_same(x_scale, d_scale):
    """|x|^2 or |d|^2 is 0 in float32, |x d| is not: a product of squares would call this gradient short."""

    def loss(w, x, key):
        return d_scale * jnp.sum(x @ w), None

    x = x_scale * jnp.arange(1.0, 4.0)[None]
    norm = x_scale * d_scale * np.sqrt(14 * 2)
    got = clipped_grad(loss, norm / 10, method="ghost")(jnp.ones((3, 2)), x, jax.random.split(jax.random.key(0), 1))
    assert got.finite[0]
    assert float(got.l2_norms[0]) == pytest.approx(norm, rel=1e-5)
    assert np.linalg.norm(np.float64(got.clipped_sum)) == pytest.approx(norm / 10, rel=1e-5)


@pytest.mark.parametrize("order", ["tokens first", "matrix first", "two axes"])
def test_a_gradient_whose_tokens_cancel_is_no_longer_than_the_bound(order):
    """What is added up is what was measured; a norm from the Gram matrices of tokens has the rounding errors of terms
    that are a million times as long as the gradient."""
    rng = np.random.default_rng(0)
    tokens, w, pull = rng.normal(size=(20, 2, 6)), rng.normal(size=(6, 3)), rng.normal(size=3)
    tokens[:, 1] = -tokens[:, 0] + 1e-6 * tokens[:, 1]

    def loss(w, tokens, key):
        if order == "two axes":
            product = jnp.einsum("tab,bao->to", tokens.reshape(2, 2, 3), w)
        else:
            product = tokens @ w if order == "tokens first" else (w.T @ tokens.T).T
        return jnp.sum(product * pull), None

    w = jnp.asarray(np.swapaxes(w.reshape(2, 3, 3), 0, 1) if order == "two axes" else w, jnp.float32)
    assert set(clipping_plan(loss, w, tokens[0], jax.random.key(0)).values()) == {"vectors"}
    clipped = jax.jit(clipped_grad(loss, 1e-8, method="ghost"))
    for one in jnp.asarray(tokens, jnp.float32)[:, None]:
        got = clipped(w, one, jax.random.split(jax.random.key(0), 1))
        assert float(optax.tree.norm(got.clipped_sum)) == pytest.approx(1e-8 / (1 + margin(w, 1)), rel=1e-6)


def test_norms_from_the_gram_matrices_of_tokens_are_too_small_where_their_terms_cancel():
    """Why gradients are formed: in float32, of two tokens and one cotangent."""
    tokens = np.random.default_rng(0).normal(size=(20, 2, 6))
    tokens[:, 1] = -tokens[:, 0] + 1e-6 * tokens[:, 1]
    tokens = jnp.asarray(tokens, jnp.float32)
    grams = jax.lax.batch_matmul(tokens, jnp.swapaxes(tokens, 1, 2))
    by_grams = jnp.sqrt(jnp.maximum(jnp.sum(grams, axis=(1, 2)), 0))
    formed = clipped_grad(lambda w, x, key: (jnp.sum(x @ w), None), 1.0)(
        jnp.ones((6, 1)), tokens, jax.random.split(jax.random.key(0), 20)
    )
    np.testing.assert_allclose(formed.l2_norms, np.linalg.norm(np.float64(tokens).sum(axis=1), axis=1), rtol=1e-5)
    assert np.sum(by_grams < formed.l2_norms / 100) > 0


def test_sums_of_bfloat16_networks_are_float32_and_no_longer_than_the_bound():
    """One example alone: were its clipped gradient rounded to bfloat16, it could be longer than C by 2^-9."""
    net = nn.Sequential([nn.Conv(5, (3, 3)), nn.silu, lambda x: x.reshape(x.shape[0], -1), nn.Dense(7), nn.Dense(3)])
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 2))
    params = net.init(jax.random.key(1), x)

    def loss(params, x, key):
        half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (params, x))
        return jnp.sum(net.apply(half[0], half[1][None]).astype(jnp.float32) ** 2), None

    clipped = jax.jit(clipped_grad(loss, 0.1, method="ghost"))
    for i in range(20):
        one = jax.random.normal(jax.random.key(i), x.shape)
        got = clipped(params, one, jax.random.split(jax.random.key(0), 1))
        assert got.clipped[0]
        assert float(optax.tree.norm(got.clipped_sum)) == pytest.approx(0.1 / (1 + margin(params, 1)), rel=1e-6)
        assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(got.clipped_sum))


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_float32_parameters_may_be_used_with_jax_enable_x64(kind):
    def loss(params, x, key):
        image = x.reshape(1, 4, 4, 1)
        y = nn.Dense(2).apply(params, x) if kind == "dense" else nn.Conv(2, (3, 3)).apply(params, image)
        return jnp.sum(jnp.square(y)), None

    x = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    like = jnp.ones(16) if kind == "dense" else jnp.ones((1, 4, 4, 1))
    params = (nn.Dense(2) if kind == "dense" else nn.Conv(2, (3, 3))).init(jax.random.key(0), like)
    with jax.enable_x64(True):
        sums = [
            clipped_grad(loss, 1.0, method=method)(params, jnp.asarray(x), jax.random.split(jax.random.key(1), 3))
            for method in ("ghost", "vmap")
        ]
    assert optax.tree.norm(sums[0].clipped_sum) > 0.1
    chex.assert_trees_all_close(sums[0].clipped_sum, sums[1].clipped_sum, rtol=1e-5)


def test_a_loss_without_the_example_is_named_and_left_to_vmap():
    def loss(params, example, key):
        return jnp.sum(params["w"] ** 2), None

    batch, keys = linear_batch(3)
    with pytest.raises(ValueError, match="does not depend on the example"):
        clipped_grad(loss, 1.0, method="ghost")(LINEAR, batch, keys)
    got = clipped_grad(loss, 0.3)(LINEAR, batch, keys)
    assert float(optax.tree.norm(got.clipped_sum)) == pytest.approx(0.9, rel=1e-5)


def test_the_plan_says_how_each_norm_is_found():
    def loss(params, image, key):
        h = nn.Conv(4, (3, 3)).apply(params["conv"], image[None])
        h = jnp.tanh(h.reshape(16, 4) @ params["pixels"])
        h = jnp.tanh(h.reshape(-1)) @ params["once"]
        for _ in range(2):
            h = jnp.tanh(h @ params["twice"])
        h = jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ params["loop"]), h)
        return jnp.sum(h * params["scale"]), None

    image = jnp.ones((4, 4, 1))
    params = {
        "conv": nn.Conv(4, (3, 3)).init(jax.random.key(0), image[None]),
        **{name: jnp.ones((5, 5)) for name in ("twice", "loop", "unused")},
        "once": jnp.ones((64, 5)),
        "pixels": jnp.ones((4, 4)),
        "scale": jnp.ones(5),
    }
    assert clipping_plan(loss, params, image, jax.random.key(0)) == {
        "['conv']['params']['kernel']": "patches",
        "['conv']['params']['bias']": "formed: add",
        "['once']": "outer product",
        "['pixels']": "vectors",
        "['twice']": "formed: dot_general, dot_general",
        "['loop']": "formed: scan",
        "['scale']": "formed: mul",
        "['unused']": "unused",
    }


def test_it_works_inside_of_other_transformations():
    """Under vmap over an ensemble, with constants that are traced, in microbatches."""
    (x, y), keys = linear_batch(5)
    ensemble = jax.tree.map(lambda p: jnp.stack([p, 2 * p, -p]), LINEAR)

    def sums(method, shift):
        def loss(params, example, key):
            return linear_loss(params, (example[0] * shift, example[1]), key)

        f = clipped_grad(loss, 0.7, method=method, microbatch_size=2)
        return jax.vmap(lambda p: f(p, (x, y), keys))(ensemble)

    got, want = (jax.jit(sums, static_argnums=0)(method, jnp.float32(1.5)) for method in ("ghost", "vmap"))
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)
