"""The paper's method: what one example can change, what padding can change, and that it learns."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from efsgd_jax import load_dataset
from efsgd_jax.data import ImageSpec, to_uint8
from efsgd_jax.privacy import DpSgdMechanism
from efsgd_jax.synthesizers.base import Batch
from efsgd_jax.synthesizers.efsgd_gan.method import efsgd_gan
from efsgd_jax.synthesizers.efsgd_gan.options import Hyperparameters
from efsgd_jax.training.update import dispatches, make_update

CLIP = {"discriminator": 0.7, "encoder": 0.5, "generator": 1.0}
HP = Hyperparameters(latent=4, generator_width=4, discriminator_width=4, encoder_width=4, max_width=8, features=8,
                     generated_batch_size=8, microbatch_size=4)  # fmt: skip
SPEC = ImageSpec(8, 1, 3)


@pytest.fixture(scope="module")
def method():
    made = efsgd_gan(SPEC, HP, DpSgdMechanism(100, 0.1, 10, 1.3, CLIP))
    return made._replace(step=jax.jit(made.step))


def batch(seed=0, keep=10):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (10, *SPEC.shape), dtype=np.uint8)
    return Batch(jnp.asarray(images), jnp.asarray(rng.integers(0, 3, 10)), jnp.arange(10) < keep, jnp.arange(10))


def private_gradient(state):
    """What Adam was given in the first step, from its first moment."""
    return jax.tree.map(lambda m: m / (1 - HP.adam_b1), state.private_optimizer[0].mu)


@pytest.mark.parametrize(
    ("scale", "copies"),
    [pytest.param(1.0, 1, marks=pytest.mark.slow), (30.0, 1), pytest.param(30.0, 3, marks=pytest.mark.slow)],
)
def test_one_example_moves_the_step_by_at_most_its_clip_norms(method, scale, copies):
    if copies > 1:  # several looks at an example are still one gradient
        hp = dataclasses.replace(HP, augmentation_multiplicity=copies)
        made = efsgd_gan(SPEC, hp, DpSgdMechanism(100, 0.1, 10, 1.3, CLIP))
        method = made._replace(step=jax.jit(made.step))
    state = method.init(jax.random.key(0))
    # Larger weights, larger gradients: the bound must not depend on them.
    state = state._replace(params=jax.tree.map(lambda p: scale * p, state.params))
    with_it, _ = method.step(state, batch(keep=7))
    without, _ = method.step(state, batch(keep=6))
    # Both had the same noise, so the difference is that example's share of the noisy mean.
    moved = jax.tree.map(lambda a, b: 10.0 * (a - b), private_gradient(with_it), private_gradient(without))
    for group, clip in CLIP.items():
        assert 0 < float(optax.tree.norm(moved[group])) <= clip * 1.001


def test_noise_has_the_joint_sensitivity(method):
    state = method.init(jax.random.key(0))
    nobody = batch(keep=0)
    gradients = []
    for seed in range(8):
        key = jax.random.key(seed)
        fresh = state._replace(privacy=state.privacy._replace(rng_key=key))
        gradients.append(private_gradient(method.step(fresh, nobody)[0])["generator"])
    draws = np.stack([np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in gradients])
    want = 1.3 * np.sqrt(0.7**2 + 0.5**2 + 1.0) / 10  # sigma * sensitivity / expected batch size
    assert draws.std() == pytest.approx(want, rel=0.02)


def test_copies_of_an_example_are_moved_and_averaged():
    hp = dataclasses.replace(HP, augmentation_multiplicity=200, noise_injection=False)
    several, one = (efsgd_gan(SPEC, h, DpSgdMechanism(100, 0.1, 10, 1.3, CLIP)) for h in (hp, HP))
    params = one.init(jax.random.key(0)).params
    image = np.zeros(SPEC.shape, np.uint8)
    image[3:5, 3:5] = 255
    _, terms = several.example_loss(params, (image, jnp.int32(1)), jax.random.key(1))

    def realness(dx, dy):
        moved = jnp.asarray(np.roll(image, (dy, dx), (0, 1)))
        return one.example_loss(params, (moved, jnp.int32(1)), jax.random.key(2))[1]["classifier"]

    each = [float(realness(dx, dy)) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]  # 8 / 14 of a pixel is one
    assert min(each) < float(terms["classifier"]) < max(each)
    assert float(terms["classifier"]) == pytest.approx(np.mean(each), abs=4 * np.std(each) / np.sqrt(200))


def test_padding_has_no_influence(method):
    state = method.init(jax.random.key(0))
    a, b = batch(keep=6), batch(keep=6)
    b = b._replace(images=b.images.at[6:].set(255), labels=b.labels.at[6:].set(0))
    (sa, ma), (sb, mb) = method.step(state, a), method.step(state, b)
    jax.tree.map(np.testing.assert_array_equal, sa.params, sb.params)
    assert ma["reconstruction"] == mb["reconstruction"]
    assert float(ma["batch_size"]) == 6


def test_the_generator_steps_every_k_private_steps():
    made = efsgd_gan(
        SPEC, dataclasses.replace(HP, private_steps_per_generator_step=3), DpSgdMechanism(100, 0.1, 10, 1.3, CLIP)
    )
    step, state = jax.jit(made.step), made.init(jax.random.key(0))
    taken = []
    for _ in range(6):
        state, metrics = step(state, batch())
        taken.append(bool(jnp.isfinite(metrics["generator"])))
    assert taken == [False, False, True, False, False, True]
    assert int(state.generator_optimizer[0].count) == 2


@pytest.mark.slow
def test_steps_in_one_dispatch_are_steps_one_by_one_and_bfloat16_stays_inside():
    made = efsgd_gan(SPEC, dataclasses.replace(HP, compute_dtype="bfloat16"), DpSgdMechanism(10, 0.5, 10, 1.3, CLIP))
    data = batch().images, batch().labels
    one, three = (make_update(made, steps=steps) for steps in (1, 3))
    single, rows = made.init(jax.random.key(0)), []
    assert {x.dtype for x in jax.tree.leaves((single.params, single.ema))} == {jnp.dtype("float32")}
    for _ in range(3):
        single, metrics = one(single, jax.random.key(1), data)
        rows.append(metrics)
    together, metrics = three(made.init(jax.random.key(0)), jax.random.key(1), data)
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
        efsgd_gan(SPEC, HP, DpSgdMechanism(100, 0.1, 10, 1.3, 1.0))


@pytest.mark.slow
def test_without_noise_it_learns_the_digits():
    data = load_dataset("digits")
    n = len(data.train_labels)
    mechanism = DpSgdMechanism(n, 128 / n, 160, 0.0, CLIP)
    made = efsgd_gan(data.spec, Hyperparameters(), mechanism)
    update, state = make_update(made), made.init(jax.random.key(0))
    arranged = made.arrange(jax.random.key(3), jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
    for _ in range(200):
        state, _ = update(state, jax.random.key(1), arranged)
    labels = np.arange(1000) % 10
    images = to_uint8(np.asarray(made.generate(made.released(state), jax.random.key(2), jnp.asarray(labels))))
    model = LogisticRegression(max_iter=200).fit(images.reshape(1000, -1) / 255.0, labels)
    assert model.score(data.test_images.reshape(-1, 64) / 255.0, data.test_labels) > 0.8
