"""Poisson batches: independent participation, a fixed shape, truncation to a random subset."""

import jax
import numpy as np
import pytest

from efsgd_jax.privacy import poisson_batch, sample_capacity


def draws(n, q, capacity, count=400):
    keys = jax.random.split(jax.random.key(0), count)
    indices, mask = jax.vmap(lambda k: poisson_batch(k, n, q, capacity))(keys)
    return np.asarray(indices), np.asarray(mask)


def test_each_example_takes_part_independently_with_probability_q():
    n, q = 50, 0.3
    indices, mask = draws(n, q, n, count=2000)
    taken = np.zeros((2000, n))
    for row, (i, m) in enumerate(zip(indices, mask, strict=True)):
        assert len(set(i[m])) == m.sum()  # no example twice
        taken[row, i[m]] = 1
    # Standard error 0.0102 per example; five of them over 50 examples.
    np.testing.assert_allclose(taken.mean(0), q, atol=0.052)
    correlation = np.corrcoef(taken.T)[~np.eye(n, dtype=bool)]
    assert abs(correlation.mean()) < 0.003
    assert taken.sum(1).var() == pytest.approx(n * q * (1 - q), rel=0.15)


@pytest.mark.parametrize("q", [150.0, 0.0, -0.1, float("nan")])
def test_a_batch_size_in_the_place_of_a_probability_is_refused(q):
    with pytest.raises(ValueError, match=r"sampling_probability is .* at most 1"):
        sample_capacity(1500, q)
    with pytest.raises(ValueError, match="sampling_probability is"):
        poisson_batch(jax.random.key(0), 1500, q, 200)


def test_padding_comes_last_and_capacity_is_ample():
    capacity = sample_capacity(1000, 0.1, multiple_of=32)
    assert capacity % 32 == 0
    assert 100 + 5 * np.sqrt(90) < capacity < 200
    assert sample_capacity(1000, 0.1, multiple_of=10**6) == sample_capacity(1000, 0.1) <= capacity
    indices, mask = draws(1000, 0.1, capacity)
    assert indices.shape == (400, capacity)
    assert np.all(np.diff(mask.astype(int), axis=1) <= 0)
    assert mask.sum(1).max() < capacity
    assert np.all((indices >= 0) & (indices < 1000))


def test_overflow_keeps_a_uniform_subset():
    indices, mask = draws(20, 0.9, 5, count=4000)
    assert mask.all()
    counts = np.bincount(indices.ravel(), minlength=20) / 4000
    np.testing.assert_allclose(counts, 5 / 20, atol=0.035)


def test_a_full_batch_has_every_example_once_and_padding_beyond_the_data():
    indices, mask = poisson_batch(jax.random.key(0), 10, 1.0, 16)
    assert sorted(np.asarray(indices)[np.asarray(mask)].tolist()) == list(range(10))
    assert not mask[10:].any()
