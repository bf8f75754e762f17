"""Exact sums of whole numbers: those of integers of numpy and Python, in any order and on any number of devices."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efsgd_jax.privacy import one_shot
from efsgd_jax.privacy.exact_sums import MAX_BITS, add, exact_product, normal, shifted, squares_by_group, sum_by_group
from efsgd_jax.privacy.noise import Integers
from efsgd_jax.privacy.one_shot import NoiseSupply, Release

product = jax.jit(exact_product, static_argnums=(2, 3))


def whole(x):
    return np.int64(x.high) * 2**24 + np.int64(x.low)


def integers(*values):
    return Integers(jnp.array([v >> 24 for v in values], jnp.int32), jnp.array([v % 2**24 for v in values], jnp.int32))


def rows_of(kind, shape, bits):
    rng = np.random.default_rng(bits)
    largest = 2**bits
    if kind == "random":
        return rng.integers(-largest, largest + 1, shape)
    value = {"largest": largest, "odd": max(largest - 1, 1), "signs": rng.choice([-largest, largest], shape)}[kind]
    return np.broadcast_to(value, shape)


@pytest.mark.parametrize("bits_a", [0, 8, 12, 14, 15])
@pytest.mark.parametrize("bits_b", [0, 8, 12, 14, 15])
def test_products_are_those_of_integers(bits_a, bits_b):
    for kind in ("random", "largest", "odd", "signs"):
        a, b = rows_of(kind, (301, 3), bits_a), rows_of(kind, (301, 2), bits_b)
        got = product(a.astype(np.float32), b.astype(np.float32), bits_a, bits_b)
        np.testing.assert_array_equal(whole(got), a.T @ b)
        assert (np.asarray(got.low) >= 0).all()
        assert (np.asarray(got.low) < 2**24).all()


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 70_000])
def test_products_of_few_and_many_rows_are_those_of_integers(count):
    for kind, p, q, bits_a, bits_b in (("random", 1, 4, 8, 14), ("random", 3, 1, 0, 12), ("largest", 1, 1, 8, 8)):
        a, b = rows_of(kind, (count, p), bits_a), rows_of(kind, (count, q), bits_b)
        got = product(a.astype(np.float32), b.astype(np.float32), bits_a, bits_b)
        np.testing.assert_array_equal(whole(got), a.T @ b)


def test_more_bits_are_refused():
    with pytest.raises(ValueError, match="16 bits"):
        exact_product(jnp.zeros((1, 1)), jnp.zeros((1, 1)), MAX_BITS + 1, 8)
    for bits in (-1, 25):
        with pytest.raises(ValueError, match="shift"):
            shifted(integers(1), bits)


def test_sums_by_group_leave_others_out():
    rows, groups = rows_of("random", (1000, 5), 12), np.random.default_rng(0).integers(-1, 4, 1000)
    got = sum_by_group(jnp.asarray(rows, jnp.float32), jnp.asarray(groups), 3, 12)
    np.testing.assert_array_equal(whole(got), [rows[groups == g].sum(axis=0) for g in range(3)])


GROUPS = {
    "some outside": lambda rng: rng.integers(-2, 9, 3000),
    "all in one": lambda rng: np.full(3000, 4),
    "one large": lambda rng: np.where(rng.random(3000) < 0.9, 2, rng.integers(0, 7, 3000)),
    "none": lambda rng: np.full(3000, 7),
}


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("kind", GROUPS)
def test_squares_by_group_are_those_of_integers(kind, bits):
    rng = np.random.default_rng(1)
    groups = GROUPS[kind](rng)
    for rows in (rows_of("random", (3000, 4), bits), rows_of("largest", (3000, 4), bits)):
        want = [rows[groups == g].T @ rows[groups == g] for g in range(7)]
        squares = jax.jit(squares_by_group, static_argnums=(2, 3))
        for order in (np.arange(3000), rng.permutation(3000)):
            got = squares(jnp.asarray(rows[order], jnp.float32), jnp.asarray(groups[order]), 7, bits)
            np.testing.assert_array_equal(whole(got), want)
        one = squares(jnp.asarray(rows, jnp.float32), jnp.asarray(groups - 4), 1, bits)
        np.testing.assert_array_equal(whole(one)[0], want[4])
    few = squares(jnp.asarray(rows[:2], jnp.float32), jnp.array([6, 6]), 7, bits)
    np.testing.assert_array_equal(whole(few)[6], rows[:2].T @ rows[:2])
    for wrong in (jnp.zeros(1, jnp.int32), jnp.zeros(4, jnp.int32), jnp.zeros((3, 1), jnp.int32)):
        with pytest.raises(ValueError, match="each row has one"):
            squares_by_group(jnp.ones((3, 2)), wrong, 2, bits)
    with pytest.raises(ValueError, match="12 bits"):
        squares_by_group(jnp.zeros((2, 2)), jnp.zeros(2, jnp.int32), 2, 12)


@settings(max_examples=200, deadline=None)
@given(a=st.integers(-(2**53), 2**53), b=st.integers(-(2**53), 2**53), bits=st.integers(0, 24), c=st.integers())
def test_limbs_add_and_shift_like_python(a, b, bits, c):
    assert whole(add(integers(a), integers(b))).tolist() == [a + b]
    small = a >> bits
    assert whole(shifted(integers(small), bits)).tolist() == [small << bits]
    c = c % 2**32 - 2**31
    assert whole(normal(jnp.array([c], jnp.int32))).tolist() == [c]


def test_float_sums_move_twice_as_far_and_exact_ones_do_not(monkeypatch):
    """Below 2^12 every step is rounded to a unit, and above it up to two: a sum that is 1 ahead gains another 1."""
    step = np.float32(2.0**-12 * 1.004)
    rows = np.concatenate([np.ones((4095, 4)), np.full((4200, 4), step)]).astype(np.float32)
    more = np.insert(rows, 0, 0.0, axis=0)
    one = more.copy()
    one[0] = 1.0

    @jax.jit
    def in_turn(rows):
        return jax.lax.scan(lambda total, row: (total + row, None), jnp.zeros(4), rows)[0]

    floats = np.linalg.norm(np.float64(in_turn(one)) - np.float64(in_turn(more))) / 2.0
    assert floats > 1.9
    monkeypatch.setattr(one_shot, "lattice_noise", lambda key, shape: jnp.zeros(shape, jnp.int32))
    sums = []
    for x in (more, one):
        release = Release(NoiseSupply(jax.random.key(0), 4), 2.0, 1.0)
        sums.append(whole(sum_by_group((r := release.rows(jnp.asarray(x), 2.0)).values, jnp.zeros(len(x), int), 1, 12)))
    moved = np.linalg.norm(sums[1] - sums[0]) * r.unit / 2.0
    assert 0.99 < moved <= 1


PROGRAM = """
import json, jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from efsgd_jax.privacy.exact_sums import exact_product, squares_by_group
from efsgd_jax.privacy.noise import lattice_noise
rng = np.random.default_rng(0)
a, b = (rng.integers(-2**12, 2**12 + 1, (4096, k)).astype(np.float32) for k in (3, 5))
f = jax.jit(lambda a, b: exact_product(a, b, 12, 12))
g = jax.jit(lambda rows, groups: squares_by_group(rows, groups, 5, 8))
sums, squares, draws = [], [], []
for count in (2, 8):
    mesh = Mesh(np.array(jax.devices()[:count]), "data")
    rows = NamedSharding(mesh, PartitionSpec("data"))
    total = f(jax.device_put(a, rows), jax.device_put(b, rows))
    sums.append((np.int64(total.high) * 2**24 + np.int64(total.low)).tolist())
    of = g(jax.device_put(a % 256, rows), jax.device_put(np.arange(4096) % 5, rows))
    squares.append((np.int64(of.high) * 2**24 + np.int64(of.low)).tolist())
    noise = jax.jit(lambda: lattice_noise(jax.random.key(20261126), (8, 3)), out_shardings=rows)
    draws.append(noise().ravel()[:8].tolist())
print(json.dumps([sums, squares, draws]))
"""


def test_sums_are_the_same_in_any_order_and_on_any_number_of_devices():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-(2**12), 2**12 + 1, (4096, k)) for k in (3, 5))
    want = a.T @ b
    for _ in range(3):
        order = rng.permutation(4096)
        got = product(a[order].astype(np.float32), b[order].astype(np.float32), 12, 12)
        np.testing.assert_array_equal(whole(got), want)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    out = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    sums, squares, draws = json.loads(out.stdout)
    assert all(np.array_equal(s, want) for s in sums)
    here = whole(squares_by_group(jnp.asarray(a % 256, jnp.float32), jnp.arange(4096) % 5, 5, 8))
    assert squares == [here.tolist()] * 2
    from test_noise import GOLDEN

    assert draws == [GOLDEN] * 2
