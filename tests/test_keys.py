"""Noise keys: two releases never have the same noise, or the second is refused."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efsgd_jax import error_feedback_aggregate, fresh_key
from efsgd_jax.privacy.keys import MEMBER, DebuggingKeyWarning, UsedOnce, derived, is_debugging_key, release_keys

PARAMS = {"a": jnp.zeros(5), "b": jnp.zeros(5)}
GRADS = {"a": jnp.zeros((1, 5)), "b": jnp.zeros((1, 5))}


def transform(key=None, noise_multiplier=1.0, clip=1.0, **options):
    return error_feedback_aggregate(clip, noise_multiplier, fresh_key() if key is None else key,
                                    expected_batch_size=1, **options)  # fmt: skip


def noise(tx, state=None, params=PARAMS, grads=GRADS):
    updates, _ = jax.jit(tx.update)(grads, tx.init(params) if state is None else state, params)
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(updates)])


def all_differ(*draws):
    together = np.concatenate([np.ravel(d) for d in draws])
    return len(np.unique(together)) == together.size


def test_two_transforms_of_one_key_draw_different_noise():
    key = fresh_key()
    assert all_differ(noise(transform(key)), noise(transform(key)))
    one = {"a": PARAMS["a"]}, {"a": GRADS["a"]}
    other = {"b": PARAMS["b"]}, {"b": GRADS["b"]}
    assert all_differ(*(noise(transform(key), None, *group) for group in (one, other)))


def test_groups_differ_also_where_the_key_comes_from_a_seed():
    with pytest.warns(DebuggingKeyWarning):
        tx = transform(jax.random.key(3))
    assert all_differ(*(noise(tx, None, {k: PARAMS[k]}, {k: GRADS[k]}) for k in PARAMS))


def test_two_states_of_one_transform_draw_different_noise():
    tx = transform()
    assert all_differ(noise(tx, tx.init(PARAMS)), noise(tx, tx.init(PARAMS)))


def test_a_second_update_with_one_state_is_refused():
    tx = transform()
    state = tx.init(PARAMS)
    _, after = tx.update(GRADS, state, PARAMS)
    with pytest.raises(ValueError, match="has noised a release before"):
        tx.update(GRADS, state, PARAMS)
    tx.update(GRADS, after, PARAMS)

    @jax.jit
    def twice(state):
        return tx.update(GRADS, state, PARAMS)[0], tx.update(GRADS, state, PARAMS)[0]

    with pytest.raises(ValueError, match="has noised a release before"):
        twice(tx.init(PARAMS))
    silent = transform(noise_multiplier=0.0)
    state = silent.init(PARAMS)
    assert (noise(silent, state) == noise(silent, state)).all()


def test_keys_that_are_gone_are_forgotten():
    used = UsedOnce()
    for _ in range(3):
        used.check(fresh_key())
    gc.collect()
    assert not used._seen


@pytest.mark.parametrize("feedback", [{}, {"feedback": "private", "feedback_l2_norm_clip": 2.0}])
def test_copies_of_a_state_in_an_ensemble_draw_different_noise(feedback):
    tx = transform(**feedback)
    state = jax.tree.map(lambda x: jnp.stack([x] * 3), tx.init(PARAMS))
    updates, after = jax.vmap(tx.update, in_axes=(None, 0))(GRADS, state)
    assert all_differ(*(updates[k] for k in updates))
    again, _ = jax.vmap(tx.update, in_axes=(None, 0))(GRADS, after)
    assert all_differ(*(updates[k] for k in updates), *(again[k] for k in again))


@pytest.mark.parametrize("swept", ["noise_multiplier", "clip", "params", "grads", "batch size"])
def test_each_member_of_a_sweep_by_vmap_draws_its_own_noise(swept):
    key = fresh_key()

    def one(x):
        tx = error_feedback_aggregate(
            x if swept == "clip" else 1.0, x if swept == "noise_multiplier" else 1.0, key,
            expected_batch_size=x if swept == "batch size" else 1.0,
        )  # fmt: skip
        params = jax.tree.map(lambda p: p + x, PARAMS) if swept == "params" else PARAMS
        grads = jax.tree.map(lambda g: g * x, GRADS) if swept == "grads" else GRADS
        return tx.update(grads, tx.init(params), params)[0]["a"]

    two = np.asarray(jax.vmap(one)(jnp.array([1.0, 2.0])))
    ratios = two[1] / two[0]
    assert np.ptp(ratios) > 1e-3  # the same noise would be the same ratio everywhere


def test_inner_transforms_under_a_chain_and_a_scan_go_on():
    tx = optax.chain(transform(), optax.sgd(1.0))

    def step(state, _):
        updates, state = tx.update(GRADS, state, PARAMS)
        return state, updates["a"]

    _, draws = jax.lax.scan(step, tx.init(PARAMS), length=4)
    assert all_differ(draws)


@pytest.mark.parametrize(
    "key", [jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(7), jax.random.key(3, impl="rbg")]
)
def test_a_key_from_a_seed_warns(key):
    with pytest.warns(DebuggingKeyWarning, match="anyone can guess it"):
        transform(key)


def test_a_secret_key_does_not_warn(recwarn):
    for key in (fresh_key(), jax.random.split(jax.random.key(0))[0]):
        assert not is_debugging_key(key)
        transform(key)
    transform(jax.random.key(0), noise_multiplier=0.0)  # nothing is protected, and nothing claimed
    assert not [w for w in recwarn if w.category is DebuggingKeyWarning]


def test_init_compiled_with_its_key_as_a_constant_warns():
    tx = transform()
    with pytest.warns(UserWarning, match="pass the key as an argument"):
        jax.jit(tx.init)(PARAMS)


def test_derived_keys_are_none_that_split_or_fold_in_give():
    key = fresh_key()

    def data(k):
        return tuple(np.asarray(jax.random.key_data(k)))

    near = [data(k) for k in jax.random.split(key, 64)] + [data(jax.random.fold_in(key, i)) for i in range(64)]
    ours = [data(derived(key, MEMBER, i)) for i in range(64)]
    ours += [data(k) for k in release_keys(key, PARAMS, 4)]
    assert len(set(ours)) == 68
    assert not set(ours) & set(near)
