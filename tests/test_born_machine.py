"""``born_machine``: its likelihood and its samples are exact, and what it learns of the digits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, fit, load_dataset, sample
from efsgd_jax.audit.membership import audit_release
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.born_machine.chain import draw, first_chain, log_probability, with_unit_norms
from efsgd_jax.synthesizers.born_machine.method import from_levels, snake, to_levels


def chain_of(chains=1, seed=0, pixels=5, levels=3):
    chain = first_chain(jax.random.key(seed), chains, 2, pixels, levels, 4)
    # Far from the identity, so that pixels depend on one another.
    return jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(seed + 1), x.shape), chain)


@pytest.mark.parametrize("chains", [1, 2])
def test_probabilities_of_all_images_sum_to_1(chains):
    chain = chain_of(chains)
    images = jnp.array(list(itertools.product(range(3), repeat=5)))
    for label in (0, 1):
        found = jax.jit(jax.vmap(lambda x, y=label: log_probability(chain, x, jnp.array(y))))(images)
        assert float(jnp.sum(jnp.exp(found))) == pytest.approx(1.0, rel=1e-4)
    assert not np.allclose(found, found[0])


def test_scales_of_the_matrices_do_not_matter():
    chain = chain_of()
    x = jnp.array([0, 2, 1, 0, 1])
    scaled = with_unit_norms(chain)
    assert float(jnp.linalg.norm(scaled.cores[0, 0])) == pytest.approx(2.0, rel=1e-5)
    one, two = (log_probability(c, x, jnp.array(1)) for c in (chain, scaled))
    assert float(one) == pytest.approx(float(two), abs=1e-4)


def test_samples_have_the_probabilities():
    chain = chain_of(pixels=3, levels=2)
    images = jnp.array(list(itertools.product(range(2), repeat=3)))
    expected = jnp.exp(jax.vmap(lambda x: log_probability(chain, x, jnp.array(1)))(images))
    keys = jax.random.split(jax.random.key(3), 20_000)
    found = jax.jit(jax.vmap(lambda k: draw(chain, k, jnp.array(1))))(keys)
    counts = np.bincount(np.asarray(found) @ np.array([4, 2, 1]), minlength=8)
    np.testing.assert_allclose(counts / 20_000, expected, atol=0.015)


def test_levels_and_the_snake_are_undone():
    assert snake(3).tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 1)).astype(np.uint8)
    found = to_levels(jnp.asarray(image), 4)
    back = (from_levels(found[None], 4, 4)[0] + 1) / 2 * 3
    np.testing.assert_array_equal(np.asarray(back).round(), image // 64)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = default_config("born_machine")
    config.privacy.epsilon = 10.0
    config.method.update(bond=6)
    config.train.update(steps=200)
    return fit(config, tmp_path_factory.mktemp("born") / "run", progress=False)


@pytest.mark.slow
def test_it_learns_the_digits(run):
    from efsgd_jax.synthesizers.born_machine import METHOD

    data, generator = load_dataset("digits"), released_generator(Workdir(run.workdir))
    like = METHOD.make_log_likelihood(data.spec, METHOD.read(default_config("born_machine").method))
    nats = -np.mean(like(generator.params, jnp.asarray(data.test_images), jnp.asarray(data.test_labels))) / 64
    assert nats < 0.5  # of equally probable pixels ln 2 = 0.69
    images = sample(run.workdir, 50).images
    assert set(np.unique(images)) == {0, 255}


@pytest.mark.slow
def test_the_audit_attacks_by_its_likelihood(run, monkeypatch):
    from efsgd_jax.audit import membership

    monkeypatch.setattr(membership, "nearness", None)  # not called
    found = audit_release(run.workdir)
    assert found.bound <= found.claimed
    assert 0.4 < found.curve < 0.65


def test_colour_is_refused(tmp_path):
    images = np.zeros((40, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=np.arange(40) % 2, x_test=images, y_test=np.arange(40) % 2)
    config = default_config("born_machine")
    config.data.update(name="npz", path=str(tmp_path / "x.npz"), classes="2")
    config.train.expected_batch_size = 8
    with pytest.raises(UserError, match="grey images of at most 1024 pixels"):
        fit(config, tmp_path / "run", progress=False)
