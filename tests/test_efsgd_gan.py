"""The paper's method: what one example can change, what padding can change, and that it learns."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import get_opaque_trace_state
from sklearn.linear_model import LogisticRegression

from efsgd_jax import load_dataset
from efsgd_jax.data import ImageSpec, to_uint8
from efsgd_jax.privacy import DpSgdMechanism, PlannedPhase
from efsgd_jax.privacy.gradient_access import GradientAccess
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.efsgd_gan.method import make_generate, phases
from efsgd_jax.synthesizers.efsgd_gan.options import Hyperparameters
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.update import Inputs, dispatches, make_update

CLIP = {"discriminator": 0.7, "encoder": 0.5, "generator": 1.0}
HP = Hyperparameters(latent=4, generator_width=4, discriminator_width=4, encoder_width=4, max_width=8, features=8,
                     generated_batch_size=8, microbatch_size=4)  # fmt: skip
SPEC = ImageSpec(8, 1, 3)


MECHANISM = DpSgdMechanism(100, 0.1, 10, 1.3, CLIP)


def phase_of(hp=HP, mechanism=MECHANISM, spec=SPEC):
    (phase,) = phases(spec, hp, [PlannedPhase("training", mechanism, 10)])
    return phase


class Batch(GradientAccess):
    """An access whose batch was chosen: the first ``keep`` of ten records."""

    def __init__(self, records, key, keep):
        super().__init__(MECHANISM, records, key)
        self._rows, self._mask = jnp.arange(10), jnp.arange(10) < keep


def step_of(phase):
    """``step(state, records, keep, seed) -> (state, metrics)``, compiled."""

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def step(state, records, keep, seed):
        access = Batch(records, jax.random.key(seed), keep)
        state, metrics = phase.step(state, access, jax.random.key(1))
        return state, {**metrics, **access.private_metrics()}

    return step


@pytest.fixture(scope="module")
def step():
    return step_of(phase_of())


def first_state(phase=None):
    return (phase or phase_of()).init(jax.random.key(0), {})


def records(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (10, *SPEC.shape), dtype=np.uint8)
    return Record(jnp.asarray(images), jnp.asarray(rng.integers(0, 3, 10)))


def private_gradient(state):
    """What Adam was given in the first step, from its first moment."""
    return jax.tree.map(lambda m: m / (1 - HP.adam_b1), state.private_optimizer[0].mu)


@pytest.mark.parametrize(
    ("scale", "copies"),
    [pytest.param(1.0, 1, marks=pytest.mark.slow), (30.0, 1), pytest.param(30.0, 3, marks=pytest.mark.slow)],
)
def test_one_example_moves_the_step_by_at_most_its_clip_norms(step, scale, copies):
    if copies > 1:  # several looks at an example are still one gradient
        step = step_of(phase_of(dataclasses.replace(HP, augmentation_multiplicity=copies)))
    state = first_state()
    # Larger weights, larger gradients: the bound must not depend on them.
    state = state._replace(params=jax.tree.map(lambda p: scale * p, state.params))
    with_it, without = (step(state, records(), keep, 3)[0] for keep in (7, 6))
    # Both had the same noise, so the difference is that example's share of the noisy mean.
    moved = jax.tree.map(lambda a, b: 10.0 * (a - b), private_gradient(with_it), private_gradient(without))
    for group, clip in CLIP.items():
        assert 0 < float(optax.tree.norm(moved[group])) <= clip * 1.001


def test_noise_has_the_joint_sensitivity(step):
    state = first_state()
    gradients = [private_gradient(step(state, records(), 0, seed)[0])["generator"] for seed in range(8)]
    draws = np.stack([np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in gradients])
    want = 1.3 * np.sqrt(0.7**2 + 0.5**2 + 1.0) / 10  # sigma * sensitivity / expected batch size
    assert draws.std() == pytest.approx(want, rel=0.02)


class Losses(GradientAccess):
    """An access that keeps the loss."""

    def clipped_gradient(self, loss, params, residual, **options):
        self.loss = loss
        return super().clipped_gradient(loss, params, residual, **options)


def example_loss(hp):
    phase, access = phase_of(hp), Losses(MECHANISM, records(), jax.random.key(0))
    jax.eval_shape(lambda: phase.step(first_state(phase), access_now(access), jax.random.key(0))[0])
    return access.loss


def access_now(access):
    """As if it were opened here."""
    access._trace = get_opaque_trace_state(convention="flax")
    return access


@pytest.mark.slow
def test_copies_of_an_example_are_moved_and_averaged():
    several, one = map(
        example_loss, (dataclasses.replace(HP, augmentation_multiplicity=200, noise_injection=False), HP)
    )
    params = first_state().params
    image = np.zeros(SPEC.shape, np.uint8)
    image[3:5, 3:5] = 255
    _, terms = several(params, (image, jnp.int32(1)), jax.random.key(1))

    def realness(dx, dy):
        moved = jnp.asarray(np.roll(image, (dy, dx), (0, 1)))
        return one(params, (moved, jnp.int32(1)), jax.random.key(2))[1]["classifier"]

    each = [float(realness(dx, dy)) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]  # 8 / 14 of a pixel is one
    assert min(each) < float(terms["classifier"]) < max(each)
    assert float(terms["classifier"]) == pytest.approx(np.mean(each), abs=4 * np.std(each) / np.sqrt(200))


def test_padding_has_no_influence(step):
    state, a = first_state(), records()
    b = Record(a.image.at[6:].set(255), a.label.at[6:].set(0))
    (sa, ma), (sb, mb) = (step(state, r, 6, 3) for r in (a, b))
    jax.tree.map(np.testing.assert_array_equal, sa.params, sb.params)
    assert ma["reconstruction"] == mb["reconstruction"]
    assert float(ma["batch_size"]) == 6


@pytest.mark.slow
def test_the_generator_steps_every_k_private_steps():
    phase = phase_of(dataclasses.replace(HP, private_steps_per_generator_step=3))
    step, state = step_of(phase), first_state(phase)
    taken = []
    for t in range(6):
        state, metrics = step(state, records(), 10, t)
        taken.append(bool(jnp.isfinite(metrics["generator"])))
    assert taken == [False, False, True, False, False, True]
    assert int(state.generator_optimizer[0].count) == 2


@pytest.mark.slow
def test_steps_in_one_dispatch_are_steps_one_by_one_and_bfloat16_stays_inside():
    phase = phase_of(dataclasses.replace(HP, compute_dtype="bfloat16"), DpSgdMechanism(10, 0.5, 10, 1.3, CLIP))
    inputs = Inputs(jax.random.key(1), jax.random.key(2), records(), {})
    one, three = (make_update(phase, steps=steps) for steps in (1, 3))
    single, rows = first_state(phase), []
    assert {x.dtype for x in jax.tree.leaves((single.params, single.ema))} == {jnp.dtype("float32")}
    for t in range(3):
        single, metrics = one(single, jnp.int32(t), inputs)
        rows.append(metrics)
    together, metrics = three(first_state(phase), jnp.int32(0), inputs)
    # A gradient of bfloat16 numbers that is rounded in another order differs by some of 2^-9; Adam's steps are 6e-3.
    chex.assert_trees_all_close(together.params, single.params, atol=2e-3)
    chex.assert_trees_all_equal_dtypes(together, single)
    np.testing.assert_array_equal(metrics["batch_size"], np.concatenate([row["batch_size"] for row in rows]))


def test_a_run_is_dispatched_to_its_boundaries(monkeypatch):
    assert list(dispatches(2, 5, [20])) == [1, 1, 1]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert list(dispatches(5, 52, [10, 25])) == [5, 10, 5, 5, 10, 10, 2]


def test_the_method_wants_a_clip_norm_per_network():
    with pytest.raises(ValueError, match="per network"):
        phase_of(mechanism=DpSgdMechanism(100, 0.1, 10, 1.3, 1.0))


@pytest.mark.slow
def test_without_noise_it_learns_the_digits():
    data = load_dataset("digits")
    n = len(data.train_labels)
    phase = phase_of(Hyperparameters(), DpSgdMechanism(n, 128 / n, 160, 0.0, CLIP), data.spec)
    update, state = make_update(phase), phase.init(jax.random.key(0), {})
    everything = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
    inputs = Inputs(jax.random.key(1), jax.random.key(2), everything, {})
    for t in range(200):
        state, _ = update(state, jnp.int32(t), inputs)
    labels = np.arange(1000) % 10
    generate = jax.jit(make_generate(data.spec, Hyperparameters()))
    images = to_uint8(np.asarray(generate(phase.release(state), jax.random.key(2), jnp.asarray(labels))))
    model = LogisticRegression(max_iter=200).fit(images.reshape(1000, -1) / 255.0, labels)
    assert model.score(data.test_images.reshape(-1, 64) / 255.0, data.test_labels) > 0.8
