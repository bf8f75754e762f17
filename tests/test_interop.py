"""The transform and clipped sums where people use them: other libraries' models, and optax's own wrappers."""

import chex
import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efsgd_jax import error_feedback_aggregate, fresh_key, load_dataset
from efsgd_jax.privacy import clip_and_sum, clipped_grad

HIDDEN, CLASSES, BATCH = 16, 10, 64


def linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(CLASSES)(nn.LayerNorm()(nn.silu(nn.Dense(HIDDEN)(x))))

    net = Net()
    return net.init(jax.random.key(0), jnp.ones(64)), net.apply


def nnx_model():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(64, HIDDEN, rngs=rngs)
            self.norm = nnx.LayerNorm(HIDDEN, rngs=rngs)
            self.last = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

        def __call__(self, x):
            return self.last(self.norm(nnx.silu(self.first(x))))

    graph, params = nnx.split(Net(nnx.Rngs(0)), nnx.Param)
    return params, lambda p, x: nnx.merge(graph, p)(x)


def haiku():
    def net(x):
        return hk.Linear(CLASSES)(hk.LayerNorm(-1, True, True)(jax.nn.silu(hk.Linear(HIDDEN)(x))))

    transformed = hk.without_apply_rng(hk.transform(net))
    return transformed.init(jax.random.key(0), jnp.ones(64)), transformed.apply


def equinox():
    model = eqx.nn.MLP(64, CLASSES, HIDDEN, 1, activation=jax.nn.silu, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return params, lambda p, x: eqx.combine(p, static)(x)


LIBRARIES = {"linen": linen, "nnx": nnx_model, "haiku": haiku, "equinox": equinox}


@pytest.fixture(scope="module")
def digits():
    data = load_dataset("digits")
    return jnp.asarray(data.train_images.reshape(-1, 64) / 255.0, jnp.float32), jnp.asarray(data.train_labels)


def loss_of(apply):
    return lambda p, x, y: optax.softmax_cross_entropy_with_integer_labels(apply(p, x), y)


def per_example(apply, params, x, y):
    return jax.jit(jax.vmap(jax.grad(loss_of(apply)), in_axes=(None, 0, 0)))(params, x, y)


@pytest.mark.parametrize("library", LIBRARIES)
def test_models_of_other_libraries_are_clipped_and_trained(library, digits):
    params, apply = LIBRARIES[library]()
    x, y = digits

    def loss(p, example, key):
        return loss_of(apply)(p, *example), None

    sums = jax.jit(clipped_grad(loss, 1.0))
    some = sums(params, (x[:BATCH], y[:BATCH]), jax.random.split(jax.random.key(0), BATCH))
    want = clip_and_sum(per_example(apply, params, x[:BATCH], y[:BATCH]), 1.0)
    chex.assert_trees_all_close(some.clipped_sum, want.clipped_sum, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(some.l2_norms, want.l2_norms, rtol=1e-4)

    tx = optax.chain(error_feedback_aggregate(1.0, 0.5, fresh_key(), expected_batch_size=BATCH), optax.adam(1e-2))
    state = tx.init(params)

    @jax.jit
    def step(params, state, i):
        rows = jax.random.choice(jax.random.fold_in(jax.random.key(1), i), len(x), (BATCH,))
        total = clipped_grad(loss, 1.0)(params, (x[rows], y[rows]), jax.random.split(jax.random.key(0), BATCH))
        updates, state = tx.update(total, state, params)
        return optax.apply_updates(params, updates), state

    for i in range(150):
        params, state = step(params, state, i)
    logits = jax.vmap(lambda a: apply(params, a))(x)
    assert float(jnp.mean(jnp.argmax(logits, -1) == y)) > 0.8


PARAMS = {"w": jnp.ones((3, 2)), "frozen": jnp.ones(4)}
GRADS = {"w": jnp.full((5, 3, 2), 0.1), "frozen": jnp.full((5, 4), 0.1)}


def aggregate(noise_multiplier=0.0, l2_norm_clip=1.0, **options):
    return error_feedback_aggregate(l2_norm_clip, noise_multiplier, fresh_key(), expected_batch_size=5, **options)


def test_schedules_and_labels_come_after_it():
    labels = {"w": "train", "frozen": "freeze"}
    inner = {"train": optax.sgd(optax.linear_schedule(1.0, 0.0, 2)), "freeze": optax.set_to_zero()}
    tx = optax.chain(aggregate(), optax.multi_transform(inner, labels))
    state, params = tx.init(PARAMS), PARAMS
    for _ in range(3):  # with rates 1, 1/2 and 0
        updates, state = tx.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal(params["frozen"], PARAMS["frozen"])
    np.testing.assert_allclose(params["w"], 1 - 1.5 * 0.1, rtol=1e-6)


def test_masked_leaves_are_clipped_and_noised_like_all_others():
    tx = optax.chain(aggregate(1.0), optax.masked(optax.add_decayed_weights(0.1), {"w": True, "frozen": False}))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, GRADS), tx.init(PARAMS), PARAMS)
    assert (np.abs(updates["frozen"]) > 1e-6).all()


def test_hyperparameters_are_injected_and_scheduled():
    tx = optax.inject_hyperparams(error_feedback_aggregate, static_args=("key", "feedback"))(
        l2_norm_clip=optax.linear_schedule(0.1, 0.2, 1), noise_multiplier=0.0, key=fresh_key(), expected_batch_size=5.0
    )
    state, norms = tx.init(PARAMS), []
    for _ in range(2):
        updates, state = jax.jit(tx.update)(jax.tree.map(lambda g: 100 * g, GRADS), state, PARAMS)
        norms.append(float(optax.tree.norm(updates)))
    np.testing.assert_allclose(norms, [0.1, 0.2], rtol=3e-5)  # clipped a little shorter, for rounding
    assert set(state.hyperparams) == {"l2_norm_clip", "noise_multiplier", "expected_batch_size"}


@pytest.mark.parametrize("feedback", [{}, {"feedback": "private", "feedback_l2_norm_clip": 2.0}])
def test_ensembles_work_with_donated_buffers(feedback):
    tx = optax.chain(aggregate(1.0, **feedback), optax.adam(0.1))
    several = jax.tree.map(lambda p: jnp.stack([p] * 3), PARAMS)
    state = jax.vmap(tx.init)(several)

    @jax.jit
    def step(params, state):
        grads = jax.tree.map(lambda g: jnp.stack([g] * 3), GRADS)
        updates, state = jax.vmap(tx.update)(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(3):
        several, state = step(several, state)
    members = np.asarray(several["w"]).reshape(3, -1)
    assert len(np.unique(members.round(6))) == members.size  # each has noise of its own


def test_averages_are_refused_where_they_can_be_known():
    """Inside of MultiSteps, after a mean, and after a transform that has looked at the whole batch."""
    mean = jax.tree.map(lambda g: g.mean(0), GRADS)
    tx = aggregate(1.0)
    with pytest.raises(ValueError, match="not an average"):
        tx.update(mean, tx.init(PARAMS), PARAMS)
    several = optax.MultiSteps(aggregate(1.0), every_k_schedule=2)
    for updates in (mean, GRADS):
        with pytest.raises((ValueError, TypeError)):
            several.update(updates, several.init(PARAMS), PARAMS)


def test_statistics_of_a_batch_are_refused():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.BatchNorm(use_running_average=False)(x))

    variables = Net().init(jax.random.key(0), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="batch_stats"):
        aggregate(1.0).init(variables)
    aggregate(1.0).init(variables["params"])

    model = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="BatchStat"):
        aggregate(1.0).init(nnx.state(model))
    aggregate(1.0).init(nnx.state(model, nnx.Param))
