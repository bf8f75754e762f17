"""The modes ``local`` and ``private`` against loops in NumPy, and the bounds that their proofs rest on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efsgd_jax.privacy import clip_and_sum, clipped_grad, error_feedback_aggregate, fresh_key, outer_clip, unit_lengths

UNITS, CLIP = 7, {"a": 0.8, "b": 0.3}
PARAMS = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(4)}
LOCAL = {"feedback": "local", "feedback_l2_norm_clip": 1.5, "feedback_decay": 0.6, "num_units": UNITS}


def batches(steps=5, size=4):
    """Gradients, rows without repetition, a mask, and a NaN now and then."""
    rng = np.random.default_rng(3)
    for step in range(steps):
        scale = rng.choice([0.05, 0.5, 3.0], size=(size, 1))
        grads = {"a": rng.normal(size=(size, 6)) * scale, "b": rng.normal(size=(size, 4)) * scale}
        if step == 2:
            grads["b"][1, 2] = np.nan
        rows, mask = rng.permutation(UNITS)[:size], np.arange(size) < size - step % 2
        yield {"a": grads["a"].reshape(size, 3, 2), "b": grads["b"]}, rows, mask


def run(tx, **update_args):
    state, sums = tx.init(PARAMS), []
    update = jax.jit(tx.update)
    for grads, rows, mask in batches():
        grads = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads)
        total, state = update(grads, state, PARAMS, mask=jnp.asarray(mask), indices=jnp.asarray(rows))
        sums.append(total)
    return sums, state


def reference_local(clip, kind, bound, decay):
    """Unit by unit, group by group, in float64."""
    groups = list(PARAMS) if isinstance(clip, dict) else [None]
    clips = clip if isinstance(clip, dict) else {None: clip}
    total_clip = np.sqrt(sum(c**2 for c in clips.values()))

    def of(tree, group):
        keys = [group] if group else list(PARAMS)
        return np.concatenate([np.ravel(tree[k]) for k in keys]).astype(np.float64)

    residual = {(i, g): 0.0 for i in range(UNITS) for g in groups}
    sums = []
    for grads, rows, mask in batches():
        total = dict.fromkeys(groups, 0.0)
        for j, i in enumerate(rows):
            one = {k: v[j] for k, v in grads.items()}
            if not mask[j] or not all(np.isfinite(v).all() for v in one.values()):
                continue
            for g in groups:
                limit = bound * clips[g] / total_clip
                vector = of(one, g)
                if kind == "vector":
                    vector = vector + residual[i, g]
                    norm = np.linalg.norm(vector)
                    sent = vector * min(1, clips[g] / norm)
                    rest = vector - sent
                    residual[i, g] = decay * rest * min(1, limit / max(np.linalg.norm(rest), 1e-12))
                else:
                    norm = np.linalg.norm(vector)
                    length = min(norm + residual[i, g], clips[g])
                    sent = vector / norm * length
                    residual[i, g] = decay * min(norm + residual[i, g] - length, limit)
                total[g] = total[g] + sent
        sums.append(total)
    return sums, residual


@pytest.mark.parametrize("clip", [0.8, CLIP], ids=["joint", "groups"])
@pytest.mark.parametrize("kind", ["scalar", "vector"])
def test_local_feedback_is_the_loop_over_units(clip, kind):
    tx = error_feedback_aggregate(clip, 0.0, fresh_key(), expected_batch_size=1, unit_residual=kind, **LOCAL)
    sums, state = run(tx)
    expected, residual = reference_local(clip, kind, 1.5, 0.6)
    for got, want in zip(sums, expected, strict=True):
        flat = np.concatenate([np.ravel(got["a"]), np.ravel(got["b"])])
        np.testing.assert_allclose(flat, np.concatenate(list(want.values())), rtol=1e-4, atol=1e-5)
    for (i, group), want in residual.items():
        got = state.residual if kind == "scalar" and group is None else state.residual.get(group, state.residual)
        if kind == "scalar":
            got = got[i]
        else:
            parts = [state.residual[k][i] for k in ([group] if group else PARAMS)]
            got = np.concatenate([np.ravel(p) for p in parts])
        np.testing.assert_allclose(got, np.broadcast_to(want, np.shape(got)), rtol=1e-4, atol=1e-5)
    assert any(np.any(r != 0) for r in residual.values())


def test_private_feedback_is_a_filter_of_what_clipping_removed():
    tx = error_feedback_aggregate(
        CLIP, 0.0, fresh_key(), expected_batch_size=1, feedback="private", feedback_l2_norm_clip=2.0, feedback_decay=0.7
    )
    sums, _ = run(tx)
    ratio = 2.0 / np.sqrt(0.8**2 + 0.3**2)
    e = dict.fromkeys(PARAMS, 0.0)
    for (grads, _, mask), got in zip(batches(), sums, strict=True):
        fine = mask & np.isfinite(grads["b"]).all(1) & np.isfinite(grads["a"]).all((1, 2))
        for k, c in CLIP.items():
            g = grads[k].reshape(len(mask), -1)[fine]
            norms = np.linalg.norm(g, axis=1, keepdims=True)
            inner, outer = (g * np.minimum(1, limit / norms) for limit in (c, c * ratio))
            e[k] = 0.7 * e[k] + 0.3 * (outer - inner).sum(0)
            np.testing.assert_allclose(np.ravel(got[k]), inner.sum(0) + e[k], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_the_two_channels_of_private_feedback_have_the_noise_of_one_mechanism(share):
    sigma, clip, outer, n = 1.3, 0.5, 2.0, 200_000
    tx = error_feedback_aggregate(
        clip, sigma, jax.random.key(0), expected_batch_size=1, feedback="private", feedback_l2_norm_clip=outer,
        feedback_share=share, feedback_decay=0.0,
    )  # fmt: skip
    params = jnp.zeros(n)
    update, state = jax.jit(tx.update)(jnp.zeros((1, n)), tx.init(params), params)
    residual_std = float(jnp.std(state.residual))
    own_std = float(jnp.std(update - state.residual))
    assert abs(float(jnp.corrcoef(update - state.residual, state.residual)[0, 1])) < 0.02
    effective = (clip / own_std) ** 2 + ((outer - clip) / residual_std) ** 2
    assert effective**-0.5 == pytest.approx(sigma, rel=0.01)
    assert ((outer - clip) / residual_std) ** 2 / effective == pytest.approx(share, rel=0.02)


@settings(max_examples=60, deadline=None)
@given(
    exponent=st.integers(-40, 18),
    carried=st.sampled_from([0.0, 0.3, 5.0, 1e6, float("inf")]),
    spread=st.integers(1, 2000),
)
def test_no_carried_length_makes_a_contribution_longer_than_the_clip_norm(exponent, carried, spread):
    """Also not where float32 squares vanish: there the norm is wrong and stretching by it would break the bound."""
    g = np.full((1, 2000), 0.0)
    g[0, :spread] = 10.0**exponent
    g[0, 0] *= 2
    got = clip_and_sum(jnp.asarray(g, jnp.float32), 1.0, carried=jnp.full(1, carried, jnp.float32))
    assert np.linalg.norm(np.asarray(got.clipped_sum, np.float64)) <= 1.0 + 1e-5
    assert not np.isnan(got.clipping_excess).any()


def loss(params, x, key):
    del key
    return jnp.sum(jnp.tanh(params["a"] * x[0])) + jnp.sum(jnp.square(params["b"] - x[1])), None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feedback": "hidden", "feedback_l2_norm_clip": 0.4},
        LOCAL,
        {"feedback": "private", "feedback_l2_norm_clip": 3.0},
    ],
    ids=["none", "hidden", "local", "private"],
)
@pytest.mark.parametrize("microbatch_size", [None, 3])
def test_clipped_grad_and_per_example_gradients_are_one_mode(options, microbatch_size):
    clip = {"a": 0.2, "b": 0.3}
    tx = error_feedback_aggregate(clip, 0.9, jax.random.key(4), expected_batch_size=5, **options)
    feedback = options.get("feedback", "none")
    sums = jax.jit(
        clipped_grad(
            loss,
            clip,
            microbatch_size=microbatch_size,
            outer_l2_norm_clip=outer_clip(feedback, options.get("feedback_l2_norm_clip")),
        )
    )
    update = jax.jit(tx.update)
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones(4)}
    x = jax.random.normal(jax.random.key(1), (4, 2))
    keys, mask = jax.random.split(jax.random.key(0), 4), jnp.array([True, True, True, False])
    states = [tx.init(params), tx.init(params)]
    for step in range(3):
        rows = (jnp.arange(4) + step) % UNITS
        per_example, _ = jax.vmap(jax.grad(loss, has_aux=True), (None, 0, 0))(params, x, keys)
        a, states[0] = update(per_example, states[0], params, mask=mask, indices=rows)
        carried = unit_lengths(states[1].residual, rows) if feedback == "local" else None
        total = sums(params, x, keys, mask, carried)
        b, states[1] = update(total, states[1], params, indices=rows)
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-5), a, b)
    residuals = [optax.tree.norm(s.residual) for s in states]
    np.testing.assert_allclose(*residuals, rtol=1e-4)
    assert feedback == "none" or residuals[0] > 0


@pytest.mark.parametrize("feedback", ["hidden", "local", "private"])
def test_members_of_an_ensemble_have_their_own_noise_and_residuals(feedback):
    options = LOCAL if feedback == "local" else {"feedback": feedback, "feedback_l2_norm_clip": 2.0}
    tx = error_feedback_aggregate(1.0, 1.0, jax.random.key(1), expected_batch_size=1, **options)
    params = jax.tree.map(lambda p: jnp.stack([p] * 3), PARAMS)
    grads = jax.tree.map(lambda p: jnp.ones((3, 2, *p.shape)), PARAMS)
    rows = jnp.array([[0, 1], [2, 3], [4, 5]])
    update = jax.jit(jax.vmap(lambda g, s, p, r: tx.update(g, s, p, indices=r)))
    updates, state = update(grads, jax.vmap(tx.init)(params), params, rows)
    draws = np.concatenate([np.asarray(u).reshape(3, -1) for u in updates.values()], axis=1)
    assert len(np.unique(np.round(draws, 5))) == draws.size
    if feedback == "private":  # the second channel too
        e = np.concatenate([np.asarray(u).reshape(3, -1) for u in state.residual.values()], axis=1)
        assert len(np.unique(np.round(e, 5))) == e.size
    if feedback == "local":
        assert [int(np.count_nonzero(r)) for r in state.residual] == [2, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**LOCAL, "sampling": "shuffle"}, "independent across units"),
        ({**LOCAL, "sampling": "without_replacement"}, "independent across units"),
        ({**LOCAL, "num_units": None}, "num_units"),
        ({**LOCAL, "feedback_decay": 1.0}, "feedback_decay"),
        ({**LOCAL, "feedback_share": 0.5}, "only private"),
        ({"feedback": "hidden", "feedback_l2_norm_clip": 1.0, "feedback_decay": 0.5}, "only local and private"),
        ({"feedback": "private", "feedback_l2_norm_clip": 0.9}, "above l2_norm_clip"),
        ({"feedback": "private", "feedback_l2_norm_clip": 2.0, "feedback_share": 1.0}, "feedback_share"),
        ({"feedback": "private", "feedback_l2_norm_clip": np.inf}, "infinite"),
        ({"feedback": "local", "num_units": 3}, "feedback_l2_norm_clip"),
        ({"sampling": "sorted"}, "sampling"),
        ({**LOCAL, "unit_residual": "matrix"}, "unit_residual"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        error_feedback_aggregate(1.0, 1.0, fresh_key(), expected_batch_size=1, **options)


def test_local_feedback_needs_to_know_the_units():
    tx = error_feedback_aggregate(1.0, 1.0, fresh_key(), expected_batch_size=1, **LOCAL)
    grads = jax.tree.map(lambda p: jnp.ones((2, *p.shape)), PARAMS)
    with pytest.raises(ValueError, match="indices"):
        tx.update(grads, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="carried"):
        tx.update(clip_and_sum(grads, 1.0), tx.init(PARAMS), PARAMS, indices=jnp.arange(2))
