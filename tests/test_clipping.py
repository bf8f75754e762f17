"""Clipped sums: the closed form, bad examples, microbatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.privacy import clip_and_sum, clip_by_norm, clipped_grad
from efsgd_jax.privacy.rounding import margin


@pytest.fixture
def grads():
    rng = np.random.default_rng(0)
    return {
        "a": jnp.asarray(rng.normal(size=(7, 3, 2)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(7, 4)) * 3, jnp.float32),
    }


def reference(grads, clip, keep):
    """The definition, one example at a time, in float64."""
    rows = [np.concatenate([np.ravel(np.float64(g[i])) for g in grads.values()]) for i in range(len(keep))]
    return sum(r * min(1, clip / np.linalg.norm(r)) for r, k in zip(rows, keep, strict=True) if k)


def shorter(clip, grads):
    """The clip norm less the margin for rounding."""
    return clip / (1 + margin(jax.tree.map(lambda g: g[0], grads), 7))


def flat(tree):
    return np.concatenate([np.ravel(x) for x in tree.values()])


@pytest.mark.parametrize("clip", [0.1, 4.0, 1e6])
def test_clipped_sum_is_the_definition(grads, clip):
    keep = np.array([1, 1, 0, 1, 1, 0, 1], bool)
    got = clip_and_sum(grads, clip, mask=keep, outer_l2_norm_clip=np.inf)
    np.testing.assert_allclose(
        flat(got.clipped_sum), reference(grads, shorter(clip, grads), keep), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(flat(got.outer_sum), reference(grads, np.inf, keep), rtol=1e-5, atol=1e-5)
    assert got.sensitivity == pytest.approx(clip)


def test_groups_have_their_own_norms_and_a_joint_sensitivity(grads):
    got = clip_and_sum(grads, {"a": 0.3, "b": 0.4})
    for name, clip in (("a", 0.3), ("b", 0.4)):
        want = reference({name: grads[name]}, shorter(clip, grads), np.ones(7, bool))
        np.testing.assert_allclose(np.ravel(got.clipped_sum[name]), want, rtol=1e-5, atol=1e-6)
    assert got.sensitivity == pytest.approx(0.5)
    with pytest.raises(ValueError, match="groups"):
        clip_and_sum(grads, {"a": 1.0})


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_one_bad_example_contributes_nothing(grads, bad):
    poisoned = {**grads, "a": grads["a"].at[2, 0, 0].set(bad)}
    keep = np.arange(7) != 2
    got = clip_and_sum(poisoned, 1.0, outer_l2_norm_clip=np.inf)
    np.testing.assert_allclose(flat(got.clipped_sum), reference(grads, shorter(1.0, grads), keep), rtol=1e-5, atol=1e-6)
    assert np.all(np.isfinite(flat(got.outer_sum)))
    assert not got.finite[2]
    assert got.finite.sum() == 6


def test_zero_gradients_and_infinite_clip_are_finite():
    zeros = {"a": jnp.zeros((3, 2))}
    assert np.all(flat(clip_and_sum(zeros, 1.0).clipped_sum) == 0)
    ones = {"a": jnp.ones((3, 2))}
    np.testing.assert_array_equal(clip_and_sum(ones, jnp.inf).clipped_sum["a"], [3, 3])


def test_averaged_gradients_are_refused():
    with pytest.raises(ValueError, match="leading example axis"):
        clip_and_sum({"w": jnp.ones((4, 3)), "b": jnp.ones(3)}, 1.0)
    with pytest.raises(ValueError, match="mask"):
        clip_and_sum({"w": jnp.ones((4, 3))}, 1.0, mask=jnp.ones(3, bool))


@pytest.mark.parametrize(("microbatch_size", "size"), [(1, 10), (3, 10), (4, 10), (64, 10), ("auto", 150)])
def test_microbatches_change_nothing(microbatch_size, size):
    def loss(params, example, key):
        noise = jax.random.normal(key, ())
        value = jnp.sum(jnp.tanh(example @ params["w"]) ** 2) * (1 + 0.1 * noise)
        return value, {"noise": noise}

    rng = np.random.default_rng(1)
    params = {"w": jnp.asarray(rng.normal(size=(5, 2)), jnp.float32)}
    batch = jnp.asarray(rng.normal(size=(size, 5)), jnp.float32)
    keys = jax.random.split(jax.random.key(2), size)
    mask = jnp.arange(size) < size - 2
    whole = clipped_grad(loss, 0.5, outer_l2_norm_clip=np.inf, microbatch_size=None)(params, batch, keys, mask)
    parts = jax.jit(clipped_grad(loss, 0.5, outer_l2_norm_clip=np.inf, microbatch_size=microbatch_size))(
        params, batch, keys, mask
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, parts)
    assert np.all(np.asarray(whole.losses[-2:]) == 0)


def test_memory_does_not_grow_with_the_batch():
    def loss(params, example, key):
        return jnp.sum(jnp.tanh(jnp.tanh(example @ params) @ params.T)), None

    def temporary(size):
        batch, keys = jnp.zeros((size, 64)), jax.random.split(jax.random.key(0), size)
        program = jax.jit(clipped_grad(loss, 0.5)).lower(jnp.zeros((64, 64)), batch, keys).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(16_384) < 1.3 * temporary(2048)  # several microbatches on every backend: 64 on CPUs, else 1,024


def test_clip_by_norm_scales_to_the_clip_norm_and_makes_zero_of_what_is_not_finite():
    tree = {"a": jnp.array([3.0, 4.0])}
    want = np.array([0.6, 0.8]) / (1 + margin(tree, 1))
    np.testing.assert_allclose(clip_by_norm(tree, 1.0)["a"], want, rtol=1e-6)
    np.testing.assert_array_equal(clip_by_norm({"a": jnp.array([jnp.nan, 4.0])}, 1.0)["a"], [0, 0])
