"""Rows of whole numbers: rounded and clipped, none is longer than the clip norm, and no image moves a release of the
mixture further than its noise assumes."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_releases import MIXTURE, NoNoise, release_of_mixture
from test_exact_sums import whole

from efsgd_jax.privacy import row_sums, sum_access, sum_terms
from efsgd_jax.privacy.noise import NOISE_WIDTH
from efsgd_jax.privacy.one_shot import NoiseSupply, Release
from efsgd_jax.privacy.row_sums import whole_rows
from efsgd_jax.training.compilation import compiler_options

NUMBERS = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.floats(-4, 4, width=32),
    st.sampled_from([0.0, -0.0, 1e-45, 1e-39, 1e38, 3.4e38, float("nan"), float("inf"), 1e19, 1e-20]),
)


def assert_no_longer(rows, clip, unit, bits):
    got = whole_rows(jnp.asarray(rows), clip, unit, bits)
    values = np.asarray(got.values)
    assert np.array_equal(values, np.trunc(values))
    assert np.abs(values).max(initial=0) <= 2**bits
    for row in values:
        assert Fraction(unit) ** 2 * sum(int(v) ** 2 for v in row if v) <= Fraction(clip) ** 2
    return values


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(NUMBERS, min_size=6, max_size=6), min_size=4, max_size=4),
    clip=st.sampled_from([1.0, 0.37, 10.0, 1e-3]),
    finer=st.sampled_from([1.0, 1.7, 1.999]),
    bits=st.sampled_from([8, 12, 14]),
)
def test_whole_rows_are_never_longer_than_the_clip_norm(rows, clip, finer, bits):
    rows = np.array(rows, np.float32)
    unit = clip / 2**bits * finer
    values = assert_no_longer(rows, clip, unit, bits)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.sum(np.square(rows), axis=1, dtype=np.float32))
    assert (values[~np.isfinite(norms)] == 0).all()
    short = norms < 0.99 * clip - 3 * unit  # rounded to nearest, and not cut
    np.testing.assert_allclose(values[short], rows[short] / unit, rtol=1e-5, atol=0.501)


@pytest.mark.parametrize("size", [1, 257, 100_000])
def test_whole_rows_of_many_numbers_are_no_longer_than_the_clip_norm(size):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, size)).astype(np.float32)
    rows[1] = 0.51 * 4096 / size**0.5 / 4096  # all of them round up
    rows[2] = 1.0
    rows[3, 1:] = 0.0
    assert_no_longer(rows, 1.0, 1 / 4096, 12)
    assert_no_longer(rows * np.float32(1e30), 1.0, 1 / 4096, 12)


@pytest.mark.parametrize(("size", "radius"), [(3, 250.0), (120, 140.0), (784, 130.0), (784, 255.0)])
def test_clipped_rows_keep_their_length(size, radius):
    """A row of the clip norm that rounding makes too long loses under 1% of its length and keeps its small numbers."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, size)) * rng.exponential(size=size)
    whole = np.asarray(whole_rows(jnp.asarray(rows, jnp.float32), 1e-3, 1e-3 / radius, 8).values, np.float64)
    lengths = np.linalg.norm(whole, axis=1) / radius
    assert lengths.max() <= 1
    assert lengths.mean() > 0.99
    want = rows / np.linalg.norm(rows, axis=1, keepdims=True) * radius
    assert np.mean(whole[np.abs(want) < 0.9] != 0) > 0.1


def test_a_clip_norm_of_too_many_units_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        whole_rows(jnp.zeros((1, 1)), 1.0, 1 / 5000, 12)


def test_squares_are_symmetric_with_noise_of_one_std_in_the_frobenius_norm():
    d, release = 150, Release(NoiseSupply(jax.random.key(0), 2 * 150**2), 4.0, 1.5)
    rows = release.factors(0.1 * jax.random.normal(jax.random.key(1), (9, d)), 2.0)
    square = np.float64(release.squares(rows, jnp.arange(9) % 2, 2))
    np.testing.assert_array_equal(square, np.swapaxes(square, 1, 2))
    values = np.float64(rows.values) * rows.unit
    residual = square - [values[g::2].T @ values[g::2] for g in range(2)]
    assert np.std(residual[:, np.arange(d), np.arange(d)]) == pytest.approx(6.0, rel=0.15)
    assert np.std(residual[:, *np.triu_indices(d, 1)]) == pytest.approx(6.0 / 2**0.5, rel=0.03)


class Recording(Release):
    """Keeps the whole numbers, and what 1 is in standard deviations of noise; leaves one row out."""

    numbers: list = []  # noqa: RUF012
    blank = -1

    def __init__(self, noise, sensitivity, noise_multiplier):
        super().__init__(NoNoise(), sensitivity, noise_multiplier)

    def noised(self, exact, count):
        self.numbers.append((exact.total, exact.unit / (self._unit * NOISE_WIDTH)))
        return super().noised(exact, count)


def without_blank(of):
    """``sum_rows`` or ``sum_squares`` without the row ``Recording.blank``."""
    return lambda rows, groups, *more: of(
        rows, jnp.where(jnp.arange(len(groups)) == Recording.blank, -1, groups), *more
    )


COUNT, D = 3000, 16
CENTRES = 0.2 * jax.random.normal(jax.random.key(7), (1, 2, D))


def level_sets():
    i = np.arange(COUNT)
    yield from (np.full(COUNT, level) for level in (255, 254, 128, 3, 1))
    yield np.where(i % 7 < 3, 251, 6)
    yield 255 - i % 256
    yield 255 - i // 12 % 256


@pytest.mark.parametrize("name", MIXTURE)
def test_a_white_image_moves_no_release_further_than_claimed(name, monkeypatch):
    monkeypatch.setattr(sum_access, "Release", Recording)
    for of in ("sum_rows", "sum_squares"):
        monkeypatch.setattr(sum_terms, of, without_blank(getattr(row_sums, of)))
    scales = []

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def numbers(levels, blank):
        monkeypatch.setattr(Recording, "numbers", [])
        monkeypatch.setattr(Recording, "blank", blank)
        x = jnp.broadcast_to(levels[:, None] / 255.0, (COUNT, D)) / (1 if name in ("means", "basis") else 4)
        release_of_mixture(name, x, jnp.zeros(COUNT, jnp.int32), 1, CENTRES, mean_clip=4.0, deviation_clip=4.0)
        scales[:] = [scale for _, scale in Recording.numbers]
        return [total for total, _ in Recording.numbers]

    moves = []
    for levels in level_sets():
        for position in (0, COUNT // 2, COUNT - 1):
            levels = levels.copy()
            levels[position] = 255
            pairs = zip(numbers(levels, -1), numbers(levels, position), scales, strict=True)
            moves.append(math.hypot(*(s * np.linalg.norm(whole(a) - whole(b)) for a, b, s in pairs)))
    assert max(moves) <= 1
    assert max(moves) > 0.7  # the claim is not far from the truth
