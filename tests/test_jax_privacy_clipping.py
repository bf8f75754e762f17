"""jax-privacy's tests of clipping (github.com/google-deepmind/jax_privacy, tests/clipping_test.py and
gradient_clipping_test.py of 2026-08-20), their cases as data and our functions behind adapters.

What does not apply, and why:

* ``rescale_to_unit_norm``, ``normalize_by`` (and sensitivities with them): ours has neither, the transform divides.
* outputs of the inputs' half precision, ``dtype=``: our sums are float32 at least, and bounds hold without ``atol``.
* the norm that is returned for a gradient that is not finite: ours says so by ``finite``.
* clip norms for nested trees: ours are for top-level groups; group norms are not returned, the joint one is.
* ``argnums``, ``batch_argnums``, ``pre_clipping_transform``, ``keep_batch_dim``: one signature, of one example's loss.
* ``_adjusted_clip_norm``, ``grid_scale`` with 64-bit integers: rows are rounded by ``whole_rows``, on its own grid.

Rows are clipped shorter by ``rounding.margin``; where values are compared, the clip norm is made longer by it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efsgd_jax.privacy import clip_and_sum, clipped_grad
from efsgd_jax.privacy.rounding import margin
from efsgd_jax.privacy.row_sums import whole_rows

FLOAT = jax.ShapeDtypeStruct((5, 5), jnp.float32)
HALF = {
    "a": jax.ShapeDtypeStruct((10,), jnp.float16), "b": FLOAT, "c": jax.ShapeDtypeStruct((), jnp.bfloat16),
}  # fmt: skip
TREES = [{"only": FLOAT}, HALF]


def clip_tree(tree, clip):
    """One tree as a batch of one."""
    return clip_and_sum(jax.tree.map(lambda x: jnp.asarray(x)[None], tree), clip)


def norm(tree):
    return np.sqrt(sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(tree)))


def longer(clip, params, rows):
    return clip * (1 + margin(params, rows))


def gradient(loss, params, batch, clip, mask=None, keys=None, **options):
    rows = jax.tree.leaves(batch)[0].shape[0]
    keys = jax.random.split(jax.random.key(0), rows) if keys is None else keys
    return jax.jit(clipped_grad(loss, longer(clip, params, rows), **options))(params, batch, keys, mask)


@pytest.mark.parametrize("struct", TREES)
@pytest.mark.parametrize("clip", [0.0, 1.0, 2.0, jnp.inf])
def test_the_norm_is_bounded(struct, clip):
    tree = optax.tree.random_like(jax.random.key(0), struct)
    for scale in (1.0, 30.0):
        scaled = jax.tree.map(lambda x, s=scale: (x * s).astype(x.dtype), tree)
        got = clip_tree(scaled, clip)
        assert norm(got.clipped_sum) <= clip
        np.testing.assert_allclose(got.l2_norms, [norm(scaled)], rtol=1e-6)


@pytest.mark.parametrize("struct", TREES)
def test_a_large_clip_norm_changes_nothing(struct):
    tree = optax.tree.random_like(jax.random.key(0), struct)
    got = clip_tree(tree, 1.5 * float(norm(tree))).clipped_sum
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, np.float32(b), atol=1e-6), got, tree)


@pytest.mark.parametrize("struct", TREES)
@pytest.mark.parametrize("clip", [0.0, 1.0, jnp.inf])
def test_zero_rows_have_a_sum_of_zero(struct, clip):
    got = clip_tree(optax.tree.zeros_like(struct), clip)
    assert norm(got.clipped_sum) == 0
    assert got.l2_norms.tolist() == [0]


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_what_is_not_finite_says_so_and_is_nothing(bad):
    got = clip_tree(jnp.array([3.0, 0.0, bad, 2.0]), 1.0)
    assert got.finite.tolist() == [False]
    assert norm(got.clipped_sum) == 0


PER_GROUP = {
    "one of two": ({"a": [3.0, 4.0], "b": [0.0, 10.0]}, {"a": 1.0, "b": 15.0}, {"a": [0.6, 0.8], "b": [0.0, 10.0]}),
    "zeros": ({"layer1": {"w": [0.0, 0.0], "b": [0.0]}}, {"layer1": 2.0}, {"layer1": {"w": [0.0, 0.0], "b": [0.0]}}),
    "groups of several leaves": (
        {"layer1": {"w": [0.0, 3.0], "b": [4.0]}, "layer2": {"w": [0.0, 8.0], "b": [6.0]}},
        {"layer1": 2.0, "layer2": 5.0},
        {"layer1": {"w": [0.0, 1.2], "b": [1.6]}, "layer2": {"w": [0.0, 4.0], "b": [3.0]}},
    ),
}


def is_list(x):
    return isinstance(x, list)


@pytest.mark.parametrize("name", PER_GROUP)
@pytest.mark.parametrize("scales", [[1.0], [1.0, 2.0, 3.0]])
def test_each_group_is_clipped_to_its_own_norm(name, scales):
    tree, clips, want = PER_GROUP[name]
    tree, want = (jax.tree.map(np.float32, t, is_leaf=is_list) for t in (tree, want))
    batch = jax.tree.map(lambda x: jnp.asarray(scales).reshape(-1, 1) * x, tree)
    got = clip_and_sum(batch, {k: longer(c, tree, len(scales)) for k, c in clips.items()})
    for group, clip in clips.items():
        own = norm(tree[group])
        times = sum(min(s, clip / own) for s in scales) if own else 0.0
        share = times / min(1.0, clip / own) if own else 0.0
        jax.tree.map(
            lambda a, b, share=share: np.testing.assert_allclose(a, share * b, rtol=1e-5),
            got.clipped_sum[group], want[group],
        )  # fmt: skip
    np.testing.assert_allclose(got.l2_norms, [s * norm(tree) for s in scales], rtol=1e-6)


def test_the_sensitivity_of_groups_is_that_of_all():
    got = clip_and_sum({"a": jnp.ones((2, 3)), "b": jnp.ones((2, 1))}, {"a": 3.0, "b": 4.0})
    assert float(got.sensitivity) == pytest.approx(5.0)


@pytest.mark.parametrize(("clip", "grid", "size"), [(1.0, 1000, 100), (5.0, 500, 1000), (0.5, 2000, 50)])
def test_rows_on_a_grid_are_no_longer(clip, grid, size):
    rng = np.random.default_rng(42)
    random = rng.standard_normal((5, size))
    random *= 2 * clip / np.linalg.norm(random, axis=1, keepdims=True)
    rows = np.concatenate([np.full((1, size), clip / size**0.5), random])
    values = np.float64(whole_rows(jnp.asarray(rows), clip, clip / grid, 11).values)
    lengths = np.linalg.norm(values, axis=1)
    assert (lengths <= grid).all()
    assert (lengths[1:] > 0.9 * grid).all()


SUMS = {"of one": lambda data: data + 2, "of a mean": lambda data: data[None].mean(axis=0)}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("bad", [None, jnp.nan])
def test_neighbours_are_within_the_sensitivity(name, bad):
    def f(data, mask=None):
        return np.float64(clip_and_sum(jax.vmap(SUMS[name])(data), 1.0, mask=mask).clipped_sum)

    data = jax.random.normal(jax.random.key(0), (15, 4))
    data = data if bad is None else data.at[5].set(bad)
    other = data.at[3].set(jnp.array([-10.0, 10, 20, 20]))
    assert np.linalg.norm(f(data) - f(other)) <= 2
    assert np.linalg.norm(f(data) - f(data, jnp.arange(15) != 3)) <= 1
    assert np.linalg.norm(f(data) - f(data[jnp.arange(15) != 3])) <= 1


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_bad_row_is_zero_and_others_stay(bad, clip):
    data = jax.random.normal(jax.random.key(0), (8, 4)).at[3].set(bad) + 2
    assert np.isfinite(clip_and_sum(data, clip).clipped_sum).all()
    assert norm(clip_and_sum(data[3:4], clip).clipped_sum) == 0


def test_norms_are_those_before_clipping():
    got = clip_and_sum(jnp.array([1.0, 2.0, 3.0]) ** 2, jnp.inf)
    assert float(got.clipped_sum) == 14
    assert got.l2_norms.tolist() == [1, 4, 9]


def quadratic(params, x, key):
    return 0.5 * jnp.mean((params - x) ** 2), {"key": x}


POINTS = jnp.array([[1.0], [4.0], [7.0]])  # gradients 1, -2, -5 at 2
MICROBATCHES = pytest.mark.parametrize("microbatch_size", [None, 1, 3])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_gradients_are_clipped_before_they_are_summed(dtype):
    got = gradient(quadratic, jnp.array([2.0], dtype), POINTS.astype(dtype), 2.5)
    np.testing.assert_allclose(got.clipped_sum, [-3.5], atol=1e-6)


@MICROBATCHES
@pytest.mark.parametrize(("padding", "want"), [((0, 0, 0), -3.5), ((1, 1, 1), 0.0), ((0, 1, 1), 1.0)])
def test_padding_adds_nothing(microbatch_size, padding, want):
    mask = ~jnp.array(padding, bool)
    got = gradient(quadratic, jnp.array([2.0]), POINTS, 2.5, mask, microbatch_size=microbatch_size)
    np.testing.assert_allclose(got.clipped_sum, [want], atol=2e-6)


@MICROBATCHES
def test_losses_norms_and_aux_are_of_each_example(microbatch_size):
    got = gradient(quadratic, jnp.array([2.0]), POINTS, 10.0, microbatch_size=microbatch_size)
    assert got.clipped_sum.tolist() == [1 - 2 - 5]
    assert got.l2_norms.tolist() == [1, 2, 5]
    assert got.losses.tolist() == [0.5, 2.0, 12.5]
    np.testing.assert_array_equal(got.aux["key"], POINTS)


@pytest.mark.parametrize("microbatch_size", [None, 1, 2])
def test_several_examples_of_a_user_have_one_gradient(microbatch_size):
    users = jnp.array([[[1.0], [2.0], [3.0]], [[3.0], [4.0], [5.0]]])
    got = gradient(quadratic, jnp.array([2.0]), users, 1000.0, microbatch_size=microbatch_size)
    want = jax.grad(lambda p: quadratic(p, users.reshape(6, 1), None)[0])(jnp.array([2.0]))
    np.testing.assert_allclose(got.clipped_sum / 2, want, rtol=1e-6)


def test_rows_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match="one row for each example"):
        gradient(quadratic, jnp.zeros(3), (jnp.zeros((10, 3)), jnp.zeros(5)), 1.0)


def test_pytrees_keep_their_structure_and_each_example_has_its_own_key():
    def regression(params, example, key):
        inputs, targets = example
        logits = inputs @ params["weights"] + params["bias"] + 0.1 * jax.random.normal(key, (2,))
        return -jnp.sum(jax.nn.log_softmax(logits) * targets), None

    params = {"weights": jnp.array([[1.0, 0.5], [2.0, -1.0]]), "bias": jnp.array([0.5, 0.0])}
    batch = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), jnp.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    sums = [gradient(regression, params, batch, 1.0, keys=jax.random.split(jax.random.key(k), 3)) for k in (0, 1)]
    assert jax.tree.structure(sums[0].clipped_sum) == jax.tree.structure(params)
    assert norm(optax.tree.sub(sums[0].clipped_sum, sums[1].clipped_sum)) > 0  # each example has its own key
