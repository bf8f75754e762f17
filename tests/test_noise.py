"""Noise: its law by enumeration, the same whole numbers however it is drawn, and what is added to what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from scipy import stats

from efsgd_jax.privacy import noise
from efsgd_jax.privacy.gaussian_table import (
    LARGEST,
    MORE_WORDS,
    SLOT_BITS,
    THRESHOLD_BITS,
    WIDTH,
    gaussian_table,
    probabilities,
)
from efsgd_jax.privacy.noise import NOISE_WIDTH, Integers, add_noise, lattice_noise, lattice_unit

KEY = jax.random.key(20261126)
SHAPE = (8, 3)
# So that another backend or version can be compared: they are integers.
GOLDEN = [-50074324, 18009879, 15398213, 35928251, -41100188, 48592221, -72909890, 5427624]

# What Z is where every digit is 1.
DIGITS_OF_ONE = 1 + 64 + 64**2 + 64**3
SIZE = 1000
added = jax.jit(lambda value, unit: add_noise(KEY, [value], unit)[0])


def padded(*values):
    return jnp.concatenate([jnp.array(values), jnp.zeros(SIZE - len(values))])


@pytest.fixture(scope="module")
def draws():
    return np.int64(jax.jit(lambda: lattice_noise(KEY, (400_000,)))())


def test_the_table_has_the_law_exactly():
    table, want = gaussian_table(), probabilities()
    law = dict.fromkeys(range(-LARGEST, LARGEST + 1), 0)
    for slot, alias in enumerate(table.aliases.tolist()):
        threshold = 0
        for word in table.thresholds[:, slot].tolist():
            threshold = (threshold << 32) + word
        own = slot - LARGEST
        if threshold:
            law[own] += threshold
        law[alias - LARGEST] += 2**THRESHOLD_BITS - threshold
    assert [law[k] for k in range(LARGEST + 1)] == want
    assert all(law[-k] == law[k] for k in range(1, LARGEST + 1))
    assert set(law) == set(range(-LARGEST, LARGEST + 1))
    assert sum(law.values()) == 2 ** (SLOT_BITS + THRESHOLD_BITS) == 2**384
    assert len(table.thresholds) == MORE_WORDS + 1
    np.testing.assert_array_equal(table.first >> SLOT_BITS, table.thresholds[0])
    np.testing.assert_array_equal(table.first & (2**SLOT_BITS - 1), table.aliases)


def test_probabilities_are_the_gaussians():
    p = np.array([c / 2**384 for c in probabilities()])
    k = np.arange(LARGEST + 1)
    np.testing.assert_allclose(
        p, np.exp(-(k**2) / (2 * WIDTH**2)) / (WIDTH * np.sqrt(2 * np.pi)), rtol=1e-12, atol=2e-116
    )
    assert p[-1] < 1e-116


def test_draws_have_gaussian_moments_and_uniform_low_digits(draws):
    z = draws / NOISE_WIDTH
    n = len(z)
    assert abs(z.mean()) < 5 / n**0.5
    assert z.var() == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    assert abs(np.mean(z**3)) < 5 * (15 / n) ** 0.5
    assert np.mean(z**4) == pytest.approx(3, abs=5 * (96 / n) ** 0.5)
    for base in (2, 64, 100):  # of digits that are added up, the last is uniform to 1e-117 and more
        assert stats.chisquare(np.bincount(draws % base, minlength=base)).pvalue > 1e-4
    assert stats.kstest(z, "norm").pvalue > 1e-4
    assert np.max(np.abs(draws)) <= LARGEST * sum(64**j for j in range(4)) < 2**31 - 2**24


def test_tails_reach_further_than_those_of_float32(monkeypatch):
    """``jax.random.normal`` in float32 has nothing beyond 5.42. A draw of this key is, as four in 10^9 should be."""
    floats = jax.jit(lambda: jax.random.normal(KEY, (2**22,)))()
    assert float(jnp.max(jnp.abs(floats))) < 5.42
    z = jax.jit(lambda: lattice_noise(jax.random.key(294), (2**18,)))()
    assert int(jnp.max(jnp.abs(z))) / NOISE_WIDTH == pytest.approx(5.8857295)

    def bits_of(slot, rest):
        first = slot << noise.FIRST_BITS | rest
        return lambda key, shape, dtype: jnp.full(shape, rest if shape == (MORE_WORDS,) else first, dtype)

    for value in (1800, -1800):  # random bits of zero are below the threshold: the slot's own value, 7.7 deviations
        monkeypatch.setattr(jax.random, "bits", bits_of(value + LARGEST, 0))
        assert int(lattice_noise(KEY, ())) == value * DIGITS_OF_ONE
    monkeypatch.setattr(jax.random, "bits", bits_of(1800 + LARGEST, 2**noise.FIRST_BITS - 1))
    alias = int(gaussian_table().aliases[1800 + LARGEST]) - LARGEST
    assert int(lattice_noise(KEY, ())) == alias * DIGITS_OF_ONE


@pytest.mark.parametrize("shape", [(), (1,), (5, 3)])
@pytest.mark.parametrize("word", [1, 2, MORE_WORDS])
def test_undecided_digits_read_more_words(monkeypatch, shape, word):
    """Random bits equal to a threshold's first words: once in 2^18 digits, here always."""
    table = gaussian_table()
    slot = LARGEST + 300
    words = table.thresholds[:, slot].astype(np.int64)

    def bits_with(last):
        def bits(key, shape, dtype):
            more = words[1:].copy()
            more[word - 1] += last
            own = more if shape == (MORE_WORDS,) else np.full(shape, slot << noise.FIRST_BITS | int(words[0]))
            return jnp.asarray(own, dtype)

        return bits

    for last, value in ((-1, slot), (1, int(table.aliases[slot])), (0, int(table.aliases[slot]))):
        monkeypatch.setattr(jax.random, "bits", bits_with(last))
        np.testing.assert_array_equal(lattice_noise(KEY, shape), np.full(shape, (value - LARGEST) * DIGITS_OF_ONE))


def test_undecided_digits_are_decided_alone(monkeypatch):
    """Five among many, by bits of their own: the others are as they were."""
    shape = (1000,)
    before = np.asarray(lattice_noise(KEY, shape))
    table, real = gaussian_table(), jax.random.bits
    chosen = [(0, 0), (0, 1), (1, 700), (3, 998), (3, 999)]

    def bits(key, shape, dtype):
        drawn = real(key, shape, dtype)
        if shape == (MORE_WORDS,):
            return drawn
        for digit, i in chosen:
            slot = drawn[digit, i] >> noise.FIRST_BITS
            drawn = drawn.at[digit, i].set(slot << noise.FIRST_BITS | table.thresholds[0][slot])
        return drawn

    monkeypatch.setattr(jax.random, "bits", bits)
    after = np.asarray(lattice_noise(KEY, shape))
    assert set(np.flatnonzero(after != before)) <= {i for _, i in chosen}
    drawn = real(jax.random.split(KEY)[0], (noise.DIGITS, *shape), jnp.uint32) >> noise.FIRST_BITS
    for digit, i in chosen[2:4]:  # of these numbers one digit is open, the others known
        slot = int(drawn[digit, i])
        step = (slot - int(table.aliases[slot])) * 64**digit
        assert int(after[i]) - int(before[i]) in {0, step, -step}


def test_numbers_are_the_same_however_they_are_drawn():
    shape = SHAPE
    eager = np.asarray(lattice_noise(KEY, shape))
    assert eager.ravel()[: len(GOLDEN)].tolist() == GOLDEN
    np.testing.assert_array_equal(jax.jit(lattice_noise, static_argnums=1)(KEY, shape), eager)
    keys = jnp.stack([jax.random.key(3), KEY])
    np.testing.assert_array_equal(jax.vmap(lambda k: lattice_noise(k, shape))(keys)[1], eager)
    mesh = Mesh(np.array(jax.devices()[:1]), "data")
    everywhere = jax.shard_map(
        lambda k: lattice_noise(k, shape), mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(),
        check_vma=False,
    )  # fmt: skip
    np.testing.assert_array_equal(jax.jit(everywhere)(KEY), eager)
    tree = noise.noise_like(KEY, {"a": jnp.zeros(4), "b": jnp.zeros((5, 4))})
    np.testing.assert_array_equal(np.concatenate([tree["a"], tree["b"].ravel()]), lattice_noise(KEY, (24,)))


def test_many_coordinates_get_their_noise_in_blocks_with_keys_of_their_own(monkeypatch):
    monkeypatch.setattr(noise, "BLOCK", 40)
    tree = {"w": jnp.arange(70.0).reshape(7, 10), "b": jnp.full(25, -3.0)}
    unit = jnp.float32(2.0**-10)
    got = jax.jit(lambda key, tree: add_noise(key, tree, unit))(KEY, tree)
    values = np.float64(np.concatenate([np.full(25, -3.0), np.arange(70.0), np.zeros(25)])).reshape(3, 40)
    z = np.concatenate([np.int64(lattice_noise(jax.random.fold_in(KEY, i), (40,))) for i in range(3)])
    want = (np.round(values.reshape(-1) * 2**10) + z)[:95] * 2.0**-10
    np.testing.assert_allclose(np.concatenate([got["b"], got["w"].reshape(-1)]), want, rtol=1e-6)
    assert len(set(z.tolist())) == len(z)
    still = jax.jit(lambda key, tree: add_noise(key, tree, 0.0))(KEY, tree)
    jax.tree.map(np.testing.assert_array_equal, still, tree)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_released_is_a_function_of_one_whole_number(dtype):
    with jax.enable_x64(dtype is np.float64):
        value = jnp.asarray(np.random.default_rng(0).normal(size=SIZE) * 10.0 ** np.arange(-6, 4).repeat(100), dtype)
        unit = lattice_unit(dtype(0.7), SIZE, dtype(2.0))
        assert unit.dtype == dtype
        out = added(value, unit)
        assert out.dtype == dtype
        z = np.int64(lattice_noise(KEY, (SIZE,)))
        scaled = np.asarray(value) * (dtype(1) / np.asarray(unit))
        number = np.int64(np.round(scaled)) + z
        high, low = number >> 24, number & (2**24 - 1)
        want = (high.astype(dtype) * dtype(2**24) + low.astype(dtype)) * np.asarray(unit)
        np.testing.assert_array_equal(out, want)
        small = np.abs(number) < 2 ** (22 if dtype is np.float32 else 50)
        np.testing.assert_array_equal(np.round(np.float64(out)[small] / float(unit)), number[small])
        # Two values that round to the same number are released alike.
        nudged = (np.round(scaled) + dtype(0.25)) * np.asarray(unit)
        exact = np.abs(scaled) < 2**20
        np.testing.assert_array_equal(np.asarray(added(jnp.asarray(nudged), unit))[exact], out[exact])
        assert float(jnp.std(added(jnp.zeros(SIZE, dtype), unit))) == pytest.approx(0.7, rel=0.1)


def test_values_that_are_no_numbers_or_huge_stay_finite():
    value = padded(jnp.nan, jnp.inf, -jnp.inf, 3e38, -3e38, 0.0)
    unit = lattice_unit(1.0, SIZE, 1.0)
    out, zero = (np.asarray(added(v, unit)) for v in (value, padded()))
    assert np.isfinite(out).all()
    assert out[0] == zero[0]
    assert out[5] == zero[5]
    largest = 2.0**54 * float(unit)
    np.testing.assert_allclose(out[1:5], [largest, -largest, largest, -largest], rtol=1e-6)


def test_a_unit_of_zero_adds_nothing_and_one_that_is_nan_gives_nan():
    value = padded(0.1, -2.5)
    np.testing.assert_array_equal(added(value, lattice_unit(0.0, SIZE, 1.0)), value)
    assert np.isnan(added(value, jnp.float32(jnp.nan))).all()


@pytest.mark.parametrize(("std", "size", "sensitivity"), [(1.0, 1, 1.0), (0.5, 10**6, 1.0), (3.0, 10**9, 0.01)])
def test_the_unit_makes_up_for_rounding(std, size, sensitivity):
    unit = float(lattice_unit(std, size, sensitivity))
    want = std * (1 + unit * size**0.5 / sensitivity)
    assert want <= unit * NOISE_WIDTH * (1 + 1e-9) <= want * (1 + 2e-6)


def test_a_unit_that_cannot_be_is_nan():
    assert np.isnan(lattice_unit(1.0, 10**18, 1e-2))  # more than twice the noise
    assert np.isnan(lattice_unit(1e-31, 1, 1e-31))  # too small a float: NaN and not unprotected
    assert np.isnan(lattice_unit(jnp.nan, 1, 1.0))
    assert float(lattice_unit(1e-25, 1, 1e-25)) > 0


def test_floats_become_the_nearest_whole_numbers():
    x = jnp.array([0.0, 0.5, 1.5, -0.5, -1.0, 2.0**24 + 2, -(2.0**30) - 64, 2.0**54, -(2.0**54), 2.0**60])
    got = noise.to_integers(x)
    number = np.int64(got.high) * 2**24 + np.int64(got.low)
    want = np.round(np.clip(np.float64(x), -(2.0**54), 2.0**54)).astype(np.int64)
    np.testing.assert_array_equal(number, want)
    assert (np.asarray(got.low) >= 0).all()
    assert (np.asarray(got.low) < 2**24).all()
    more = noise.plus(Integers(jnp.int32(-1), jnp.int32(5)), jnp.int32(-7))
    assert int(more.high) * 2**24 + int(more.low) == -(2**24) - 2
