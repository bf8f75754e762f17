"""The transform: optax's function where that is correct, and the traps that it fixes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efsgd_jax.privacy import clip_and_sum
from efsgd_jax.privacy.feedback import error_feedback_aggregate
from efsgd_jax.privacy.keys import fresh_key

PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}


def random_grads(seed=0, batch=6, scale=1.0):
    k1, k2 = jax.random.split(jax.random.key(seed))
    return {
        "w": scale * jax.random.normal(k1, (batch, 3, 2)),
        "b": scale * jax.random.normal(k2, (batch, 2)),
    }


def assert_trees_close(a, b, **kw):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **kw), a, b)


def test_without_noise_it_equals_optax():
    ours = error_feedback_aggregate(0.7, 0.0, fresh_key(), expected_batch_size=6)
    theirs = optax.contrib.differentially_private_aggregate(0.7, 0.0, jax.random.key(5))
    a, b = ours.init(PARAMS), theirs.init(PARAMS)
    for step in range(3):
        ua, a = ours.update(random_grads(step), a, PARAMS)
        ub, b = theirs.update(random_grads(step), b)
        assert_trees_close(ua, ub, rtol=1e-4, atol=1e-6)


def test_privacy_off_is_the_mean_gradient():
    tx = error_feedback_aggregate(jnp.inf, 0.0, fresh_key(), expected_batch_size=6)
    updates, _ = tx.update(random_grads(), tx.init(PARAMS), PARAMS)
    assert_trees_close(updates, jax.tree.map(lambda g: g.mean(0), random_grads()), rtol=1e-5, atol=1e-6)


def test_noise_has_its_std_and_is_divided_by_the_expected_size():
    big = {"w": jnp.zeros((200, 500))}
    tx = error_feedback_aggregate(2.0, 1.5, jax.random.key(0), expected_batch_size=10)
    updates, _ = tx.update({"w": jnp.zeros((4, 200, 500))}, tx.init(big), big)
    assert float(jnp.std(updates["w"])) == pytest.approx(2.0 * 1.5 / 10, rel=0.01)


def test_hidden_feedback_returns_what_was_clipped():
    tx = error_feedback_aggregate(
        0.5, 0.0, fresh_key(), expected_batch_size=1, feedback="hidden", feedback_l2_norm_clip=0.2
    )
    state = tx.init(PARAMS)
    sent, given = None, None
    for step in range(4):
        grads = random_grads(step)
        updates, state = tx.update(grads, state, PARAMS)
        clipped = clip_and_sum(grads, 0.5).clipped_sum
        # v - sum clip(g) is clip(e, C2): never longer than C2, and exactly that once e is longer.
        back = optax.tree.norm(optax.tree.sub(updates, clipped))
        assert float(back) == pytest.approx(0.0 if step == 0 else 0.2, abs=1e-5)
        raw = jax.tree.map(lambda g: g.sum(0), grads)
        sent = updates if sent is None else optax.tree.add(sent, updates)
        given = raw if given is None else optax.tree.add(given, raw)
    # The invariant of error feedback: nothing is lost, e = sum of gradients - sum of what was sent.
    assert_trees_close(state.residual, optax.tree.sub(given, sent), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jit", [pytest.param(False, marks=pytest.mark.slow), True])
def test_ensemble_members_get_independent_noise(jit):
    tx = error_feedback_aggregate(1.0, 1.0, jax.random.key(1), expected_batch_size=1)
    params = jax.tree.map(lambda p: jnp.stack([p] * 3), PARAMS)
    grads = jax.tree.map(lambda g: jnp.zeros((3, *g.shape)), random_grads())
    compiled = jax.jit if jit else lambda f: f
    update = compiled(jax.vmap(tx.update))
    updates, state = update(grads, jax.vmap(tx.init)(params), params)
    again, _ = update(grads, state, params)
    draws = np.concatenate([np.asarray(u["w"]).reshape(3, -1) for u in (updates, again)])
    assert len(np.unique(draws)) == draws.size

    # Also when the members share one state and only the gradients are batched.
    shared, _ = compiled(jax.vmap(tx.update, in_axes=(0, None)))(grads, tx.init(PARAMS))
    assert len(np.unique(shared["w"])) == shared["w"].size

    # And in ensembles of ensembles, whichever level carries the state.
    nested = jax.tree.map(lambda g: jnp.stack([g] * 2), grads)
    inits = {None: tx.init(PARAMS), 3: jax.vmap(tx.init)(params)}
    inits[2] = jax.tree.map(lambda s: s[:2], inits[3])
    for members, inner, outer in ((None, None, None), (3, 0, None), (2, None, 0)):
        update = jax.vmap(jax.vmap(tx.update, in_axes=(0, inner)), in_axes=(0, outer))
        both, _ = update(nested, inits[members])
        assert len(np.unique(both["w"])) == both["w"].size


def test_donating_the_state_leaves_the_transform_usable():
    tx = error_feedback_aggregate(1.0, 1.0, jax.random.key(1), expected_batch_size=6)
    step = jax.jit(lambda g, s: tx.update(g, s), donate_argnums=1)
    first, _ = step(random_grads(), tx.init(PARAMS))
    second, _ = step(random_grads(), tx.init(PARAMS))
    assert_trees_close(first, second, rtol=1e-6)


def test_legacy_keys_are_taken_and_seeds_refused():
    legacy = jax.random.PRNGKey(3)
    a = error_feedback_aggregate(1.0, 1.0, legacy, expected_batch_size=1)
    b = error_feedback_aggregate(1.0, 1.0, jax.random.key(3), expected_batch_size=1)
    assert_trees_close(
        a.update(random_grads(), a.init(PARAMS))[0], b.update(random_grads(), b.init(PARAMS))[0], rtol=1e-6
    )
    with pytest.raises(TypeError, match="guessed"):
        error_feedback_aggregate(1.0, 1.0, 0, expected_batch_size=1)


def test_mask_drops_padding():
    tx = error_feedback_aggregate(1.0, 0.0, fresh_key(), expected_batch_size=6)
    grads = random_grads()
    padded = jax.tree.map(lambda g: jnp.concatenate([g, jnp.full_like(g[:2], jnp.nan)]), grads)
    got, _ = tx.update(padded, tx.init(PARAMS), PARAMS, mask=jnp.arange(8) < 6)
    want, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert_trees_close(got, want, rtol=2e-5)  # the margin for rounding is of eight rows, and of six


def test_averaged_gradients_are_refused():
    tx = error_feedback_aggregate(1.0, 1.0, fresh_key(), expected_batch_size=1)
    mean = jax.tree.map(lambda g: g.mean(0), random_grads())
    with pytest.raises(ValueError, match="first in the chain"):
        tx.update(mean, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="first in the chain"):  # the shapes are known from init
        tx.update(mean, tx.init(PARAMS))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"l2_norm_clip": 0.0}, "l2_norm_clip"),
        ({"l2_norm_clip": float("nan")}, "l2_norm_clip"),
        ({"l2_norm_clip": float("inf")}, "infinite"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"expected_batch_size": 0}, "expected_batch_size"),
        ({"feedback": "hidden"}, "feedback_l2_norm_clip"),
        ({"feedback_l2_norm_clip": 1.0}, "feedback_l2_norm_clip"),
        ({"feedback": "sometimes"}, "feedback must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(kwargs, message):
    arguments = {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "expected_batch_size": 1, **kwargs}
    with pytest.raises(ValueError, match=message):
        error_feedback_aggregate(
            arguments.pop("l2_norm_clip"), arguments.pop("noise_multiplier"), fresh_key(), **arguments
        )


def test_low_precision_gradients_come_back_in_their_dtype():
    tx = error_feedback_aggregate(1.0, 0.0, fresh_key(), expected_batch_size=512)
    grads = {"w": jnp.full((512, 4), 0.01, jnp.bfloat16)}
    updates, _ = tx.update(grads, tx.init({"w": jnp.zeros(4, jnp.bfloat16)}))
    assert updates["w"].dtype == jnp.bfloat16
    # Summed in float32: in bfloat16 the running sum of 512 terms would stall.
    np.testing.assert_allclose(np.asarray(updates["w"], np.float32), 0.01, rtol=0.01)
