"""The public privacy functions, given what users can produce: they keep their bound, or refuse in a sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efsgd_jax import error_feedback_aggregate, fresh_key
from efsgd_jax.privacy import DpSgdMechanism, calibrate_mechanism, clip_and_sum, clip_by_norm, clipped_grad
from efsgd_jax.privacy.keys import DebuggingKeyWarning
from efsgd_jax.privacy.one_shot import NoiseSupply, Release, gaussian_release
from efsgd_jax.privacy.row_sums import whole_rows

PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros(2)}
GRADS = {"w": jnp.ones((4, 3)), "b": jnp.ones((4, 2))}
P, X = jnp.zeros(3), jnp.ones((4, 3))


def dot(params, example, key):
    return jnp.vdot(params, example), None


def of_w(params, example, key):
    return jnp.vdot(params["w"], example), None


def keys(n):
    return jax.random.split(jax.random.key(0), n)


def transform(noise_multiplier=1.0, batch=4, clip=1.0, **options):
    return error_feedback_aggregate(clip, noise_multiplier, fresh_key(), expected_batch_size=batch, **options)


def release(noise_multiplier=1.0):
    return Release(NoiseSupply(fresh_key(), 100), 1.0, noise_multiplier)


MECHANISM = DpSgdMechanism(dataset_size=100, sampling_probability=0.1, capacity=32, noise_multiplier=1.0)


def step_of(rows=32, mechanism=MECHANISM, mask=True, clipped=False):
    """An update of a mechanism's transform for a batch of so many rows, with or without its mask."""
    tx, given = mechanism.transform(fresh_key()), jnp.ones(rows, bool) if mask else None
    if clipped:
        total = clipped_grad(dot, 1.0)(P, jnp.ones((rows, 3)), keys(rows), given)
        return tx.update(total, tx.init(P), P)
    return tx.update(jnp.ones((rows, 3)), tx.init(P), P, mask=given)


def sums(loss=dot, clip=1.0, params=P, batch=X, **options):
    return clipped_grad(loss, clip, **options)(params, batch, keys(len(jax.tree.leaves(batch)[0])))


REFUSED = {
    "a fresh key in a compiled function": (
        lambda: jax.jit(lambda: jax.random.normal(fresh_key()))(), "constant"
    ),
    "a mechanism's batch without its mask": (lambda: step_of(mask=False), "update(..., mask=mask)"),
    "its clipped sum without a mask": (lambda: step_of(mask=False, clipped=True), "the function that clipped_grad"),
    "a batch of more rows": (lambda: step_of(100), "the batch has 100 rows"),
    "a clipped sum of fewer rows": (lambda: step_of(31, clipped=True), "the batch has 31 rows"),
    "a batch size as probability": (
        lambda: MECHANISM._replace(sampling_probability=10.0).sample(fresh_key()), "sampling_probability is 10"
    ),
    "a batch size as probability, to calibrate": (
        lambda: calibrate_mechanism(MECHANISM._replace(sampling_probability=10.0), 10, 1.0, 1e-5),
        "expected batch size divided by N",
    ),
    "feedback without a norm": (
        lambda: MECHANISM._replace(feedback="hidden").epsilon(10, 1e-5), "needs a norm for what it feeds back"
    ),
    "a misspelt mode": (lambda: MECHANISM._replace(feedback="Local").sample(fresh_key()), "feedback is 'Local'"),
    "half a step": (lambda: MECHANISM.epsilon(10.5, 1e-5), "the number of steps is 10.5"),
    "no end of steps": (lambda: MECHANISM.epsilon(float("inf"), 1e-5), "the number of steps is inf"),
    "a seed for a batch": (lambda: MECHANISM.sample(0), "fresh_key()"),
    "an average, to a mechanism": (
        lambda: MECHANISM.transform(fresh_key()).update(P, MECHANISM.transform(fresh_key()).init(P), P),
        "not an average",
    ),
    "epsilon and delta swapped": (lambda: calibrate_mechanism(MECHANISM, 10, 1e-5, 3.0), "delta is 3"),
    "a negative delta": (lambda: MECHANISM.epsilon(10, -1.0), "delta is -1"),
    "more keys than rows": (lambda: clipped_grad(dot, 1.0)(P, X, keys(8)), "8 keys"),
    "fewer keys than rows": (lambda: clipped_grad(dot, 1.0)(P, X, keys(3)), "3 keys"),
    "leaves of different length": (
        lambda: clipped_grad(lambda p, e, k: (jnp.vdot(p, e[0]) * e[1], None), 1.0)(P, (X, jnp.ones(3)), keys(4)),
        "shape (3,)",
    ),
    "one key in the place of B": (lambda: clipped_grad(dot, 1.0)(P, X, jax.random.key(0)), "shape ()"),
    "one legacy key": (lambda: clipped_grad(dot, 1.0)(P, X, jax.random.PRNGKey(0)), "shape (2,)"),
    "no keys": (lambda: clipped_grad(dot, 1.0)(P, X, None), "NoneType"),
    "a mask of another length": (
        lambda: clipped_grad(dot, 1.0)(P, X, keys(4), jnp.ones(5, bool)), "mask has shape (5,)"
    ),
    "a mask of numbers": (lambda: clipped_grad(dot, 1.0)(P, X, keys(4), jnp.ones(4)), "mask has dtype float32"),
    "carried of another length": (
        lambda: clipped_grad(dot, 1.0)(P, X, keys(4), None, jnp.zeros(3)), "carried has shape (3,)"
    ),
    "negative clip norm": (lambda: sums(clip=-1.0), "l2_norm_clip is -1"),
    "NaN clip norm": (lambda: sums(clip=float("nan")), "l2_norm_clip is nan"),
    "NaN clip norm of a group": (lambda: clip_and_sum(GRADS, {"w": 1.0, "b": np.nan}), "l2_norm_clip['b'] is nan"),
    "negative outer clip norm": (lambda: sums(outer_l2_norm_clip=-2.0), "outer_l2_norm_clip is -2"),
    "an outer clip norm beside none": (lambda: sums(clip=0.0, outer_l2_norm_clip=jnp.inf), "above 0"),
    "a clip norm for each row": (lambda: sums(clip=jnp.ones(4)), "shape (4,)"),
    "complex parameters": (lambda: sums(params=jnp.zeros(3, jnp.complex64)), "complex64"),
    "complex gradients": (lambda: clip_and_sum(jnp.ones((4, 2), jnp.complex64), 1.0), "complex64"),
    "an integer leaf": (lambda: sums(of_w, params={"w": P, "n": jnp.arange(3)}), "['n'] of dtype int32"),
    "integer gradients": (lambda: clip_and_sum(jnp.ones((4, 2), int), 1.0), "int32"),
    "a loss without aux": (lambda: sums(lambda p, x, k: jnp.vdot(p, x)), "(scalar, aux)"),
    "a loss without a key": (lambda: sums(lambda p, x: (jnp.vdot(p, x), None)), "takes the key too"),
    "a loss of shape (1,)": (lambda: sums(lambda p, x, k: (jnp.vdot(p, x)[None], None)), "shape (1,)"),
    "an integer loss": (lambda: sums(lambda p, x, k: (jnp.int32(1), None)), "int32"),
    "an unknown method": (lambda: clipped_grad(dot, 1.0, method="x"), "vmap"),
    "a microbatch of none": (lambda: sums(microbatch_size=0), "microbatch_size is 0"),
    "a microbatch of a half": (lambda: sums(microbatch_size=0.5), "microbatch_size is 0.5"),
    "averages, without params": (
        lambda: transform().update(jax.tree.map(jnp.ones_like, WIDE), transform().init(WIDE)), "not an average"
    ),
    "optax.masked": (lambda: updated(optax.masked(transform(), {"w": True, "b": False})), "hides leaves"),
    "optax.partition": (
        lambda: updated(optax.partition({"a": transform(), "b": transform()}, {"w": "a", "b": "b"})), "hides leaves"
    ),
    "optax.multi_transform": (
        lambda: updated(optax.multi_transform({"a": transform(), "b": optax.sgd(1.0)}, {"w": "a", "b": "b"})),
        "hides leaves",
    ),
    "optax.MultiSteps": (lambda: updated(optax.MultiSteps(transform(), 2)), "not an average"),
    "optax.apply_if_finite": (lambda: updated(optax.apply_if_finite(transform(), 3)), "cond"),
    "a sum scaled by a transform before": (
        lambda: updated(optax.chain(optax.scale(1e3), transform()), sums(), P), "first in the chain"
    ),
    "a sum clipped by a transform before": (
        lambda: updated(optax.chain(optax.clip(1e-3), transform()), sums(), P), "first in the chain"
    ),
    "a sum of another clip norm": (lambda: updated(transform(clip=0.5), sums(), P), "clipped to 1"),
    "a sum of a smaller clip norm": (lambda: updated(transform(clip=2.0), sums(), P), "clipped to 1"),
    "a sum of other parameters": (lambda: updated(transform(), sums(), PARAMS), "other parameters"),
    "gradients of some parameters": (
        lambda: updated(transform(), {"w": X}, PARAMS),
        "1 leaves and 2 parameters",
    ),
    "a mask for a sum": (lambda: updated(transform(), sums(), P, mask=jnp.ones(4, bool)), "mask= has no effect"),
    "an outer clip that is not the mode's": (lambda: updated(transform(), sums(outer_l2_norm_clip=2.0), P), "outer"),
    "an infinite outer clip for private": (
        lambda: updated(
            transform(feedback="private", feedback_l2_norm_clip=2.0), sums(outer_l2_norm_clip=jnp.inf), P
        ),
        "outer_l2_norm_clip is inf",
    ),
    "a finite outer clip for hidden": (
        lambda: updated(transform(feedback="hidden", feedback_l2_norm_clip=2.0), sums(outer_l2_norm_clip=2.0), P),
        "needs inf",
    ),
    "carried lengths without local": (
        lambda: updated(transform(), clipped_grad(dot, 1.0)(P, X, keys(4), None, jnp.zeros(4)), P), "carried="
    ),
    "integer parameters of the transform": (lambda: transform().init({"n": jnp.arange(3)}), "int32"),
    "groups for fewer rows": (
        lambda: release().sums(release().rows(X, 1.0), jnp.zeros(3, int), 2), "3 rows and 4 rows"
    ),
    "squares of fewer groups": (
        lambda: release().squares(release().factors(X, 1.0), jnp.zeros(3, int), 1), "4 rows and groups of shape (3,)"
    ),
    "a release with negative noise": (lambda: release(-1.0), "noise_multiplier -1"),
    "a release with NaN for noise": (lambda: release(float("nan")), "noise_multiplier nan"),
    "a release that is not clipped": (lambda: whole_rows(X, float("nan"), 1.0, 8), "l2_norm_clip is nan"),
    "a noised sum without noise": (lambda: gaussian_release(fresh_key(), P, 1.0, 0.0), "noise_multiplier is 0"),
    "a noised sum without sensitivity": (lambda: gaussian_release(fresh_key(), P, 0.0, 1.0), "sensitivity is 0"),
    "a noised sum of integers": (lambda: gaussian_release(fresh_key(), jnp.arange(3), 1.0, 1.0), "int32"),
    "a batch too large for float32": (lambda: clip_and_sum(jnp.zeros((400_000, 1)), 1.0), "smaller batches"),
}  # fmt: skip
WIDE = {"w": jnp.zeros((10, 64)), "b": jnp.zeros(10)}


def updated(tx, updates=GRADS, params=PARAMS, **options):
    return tx.update(updates, tx.init(params), params, **options)[0]


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_lose_the_bound_is_refused_in_a_sentence(name):
    attempt, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError)) as error:
        attempt()
    assert message in str(error.value)
    assert len(str(error.value)) > 20


@pytest.mark.parametrize("method", ["auto", "ghost", "vmap"])
def test_an_empty_batch_is_noise_alone(method):
    empty = clipped_grad(dot, 1.0, method=method)(P, X[:0], keys(1)[:0])
    np.testing.assert_array_equal(empty.clipped_sum, 0.0)
    for total in (empty, X[:0]):
        noise = updated(transform(), total, P)
        assert np.isfinite(noise).all()
        assert (noise != 0).all()


@pytest.mark.parametrize("clip", [0.0, 1e-12])
def test_a_clip_norm_of_zero_or_nearly_zero_gives_a_sum_of_zero(clip):
    for x in (X, 0 * X):
        np.testing.assert_array_equal(sums(clip=clip, batch=x).clipped_sum, 0.0)


def test_python_numbers_and_leaves_without_elements_are_parameters():
    params, loss = {"w": 1.0, "z": jnp.zeros((0, 2))}, lambda p, x, k: (p["w"] * jnp.sum(x) + jnp.sum(p["z"]), None)
    got = sums(loss, params=params).clipped_sum
    np.testing.assert_allclose(got["w"], 4.0, rtol=1e-4)
    update = updated(transform(0.0), {"w": jnp.ones(4), "z": jnp.zeros((4, 0, 2))}, params)
    np.testing.assert_allclose(update["w"], 1.0, rtol=1e-4)


def test_a_norm_that_is_known_only_when_the_program_runs_gives_nan_if_it_is_too_large():
    tx = transform()
    state = tx.init(P)

    @jax.jit
    def update(clip):
        return tx.update(clipped_grad(dot, clip)(P, X, keys(4)), state)[0]

    assert np.isnan(update(5.0)).all()
    assert np.isfinite(update(1.0)).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_contributes_no_more_than_the_clip_norm(dtype):
    small = jnp.full(10_000, 1e-4, dtype)
    assert float(optax.tree.norm(clip_by_norm(small, 1e-3))) <= 1e-3
    assert float(optax.tree.norm(clip_and_sum(small[None], 1e-3).clipped_sum)) <= 1e-3

    def loss(params, x, key):
        return jnp.sum(params.astype(dtype) * x[0] * x[1]), None

    # Under jit XLA may leave out a rounding where it computes a number for the second time.
    one = jax.jit(clipped_grad(loss, 1.0))
    for a in np.linspace(1.1, 1.9, 33):
        total = one(jnp.zeros(1, dtype), jnp.array([[a, 1.75]], dtype), keys(1)).clipped_sum
        assert abs(float(total[0])) <= 1.0


def test_squares_that_vanish_do_not_hide_a_gradient():
    tiny = jnp.full((1, 1000), 1e-22)
    assert float(optax.tree.norm(clip_and_sum(tiny, 1e-9).clipped_sum)) <= 1e-9
    np.testing.assert_array_equal(clip_and_sum(tiny, 1e-24).clipped_sum, 0.0)


def test_a_long_gradient_of_equal_numbers_is_as_long_as_it_is():
    """Added up one by one in float32, the squares would stall at 2^24 times the first one."""
    n = 2**25
    got = clip_and_sum(jnp.full((1, n), 1.0), 1.0)
    assert float(got.l2_norms[0]) == pytest.approx(n**0.5, rel=1e-4)
    assert float(jnp.linalg.norm(np.asarray(got.clipped_sum, np.float64))) <= 1.0


def test_mutable_references_are_seen_or_formed():
    def loss(params, x, key):
        ref = jax.new_ref(jnp.zeros_like(x))
        ref[...] = params * x
        return jnp.sum(ref[...] ** 2) + jnp.vdot(params, x), None

    params = jnp.ones(3)
    want = sums(loss, params=params, method="vmap", microbatch_size=None)
    got = sums(loss, params=params)
    np.testing.assert_allclose(got.l2_norms, want.l2_norms)
    with pytest.raises(ValueError, match="effects"):
        sums(loss, params=params, method="ghost")


@pytest.mark.parametrize("mode", ["fill", "clip", "drop", "promise_in_bounds"])
@pytest.mark.parametrize("index", [1, 7, -9])
def test_gathers_beyond_the_end_have_the_same_norms_by_ghost_and_by_vmap(mode, index):
    table = jnp.arange(12.0).reshape(4, 3) + 1

    def loss(params, i, key):
        return jnp.sum(params.at[i].get(mode=mode, **({"fill_value": 0.0} if mode == "fill" else {})) ** 2), None

    want, got = (sums(loss, params=table, batch=jnp.array([index, 1]), method=m) for m in ("vmap", "ghost"))
    np.testing.assert_allclose(got.l2_norms, want.l2_norms, rtol=1e-6)
    np.testing.assert_allclose(got.clipped_sum, want.clipped_sum, rtol=1e-5)


def test_a_mechanism_takes_its_own_batches():
    whole = DpSgdMechanism(dataset_size=4, sampling_probability=1.0, capacity=4, noise_multiplier=1.0)
    for clipped in (False, True):
        assert np.isfinite(step_of(clipped=clipped)[0]).all()
        assert np.isfinite(step_of(4, whole, mask=False, clipped=clipped)[0]).all()  # all rows, always

    @jax.jit
    def step(state, key):
        rows, mask = MECHANISM.sample(key)
        total = clipped_grad(dot, 1.0, microbatch_size=8)(P, jnp.ones((100, 3))[rows], keys(len(rows)), mask)
        return tx.update(total, state, P)

    tx = MECHANISM.transform(fresh_key())
    assert np.isfinite(step(tx.init(P), fresh_key())[0]).all()


def test_a_batch_by_a_guessable_key_warns():
    with pytest.warns(DebuggingKeyWarning, match="sample has a key made from a seed"):
        MECHANISM.sample(jax.random.key(0))


@pytest.mark.parametrize("method", ["auto", "vmap"])
def test_a_numpy_batch_of_several_microbatches_is_clipped_without_jit(method):
    rows = np.random.default_rng(0).normal(size=(130, 3)).astype(np.float32)
    found = clipped_grad(dot, 1.0, method=method)(P, rows, keys(130))
    wanted = clipped_grad(dot, 1.0, method=method, microbatch_size=None)(P, jnp.asarray(rows), keys(130))
    np.testing.assert_allclose(found.clipped_sum, wanted.clipped_sum, rtol=1e-5, atol=1e-5)
