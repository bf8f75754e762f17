"""The audit where there is more to see: leaves, losses, microbatches, meshes, sums and tails."""

import json
import math
import os
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.audit.scores import NORMAL_NUMBERS, every_coordinate, normal_of
from efsgd_jax.audit.sum_games import adversarial_rows, sum_games
from efsgd_jax.audit.tails import NORMAL_REACH, attack_tails, tail_bound
from efsgd_jax.audit.tree_games import tree_games
from efsgd_jax.audit.tree_mutants import float32_noise, tree_mutants
from efsgd_jax.audit.white_box import audit
from efsgd_jax.privacy import clip_and_sum
from efsgd_jax.privacy.one_shot import NoiseSupply, Release

DELTA, KEY = 1e-2, jax.random.key(7)


def test_sound_code_survives_and_tight_claims_are_approached():
    """The others of these are played by the mutants' test, as what is broken there."""
    assert len([*tree_games(), *sum_games()]) >= 5
    games = [g for g in tree_games() if "Poisson" in g.name or "loops" in g.name]
    assert len(games) == 2
    for row in audit(games, trials=10_000, delta=DELTA, key=KEY):
        assert (0.55 if row.tight else 0.1) * row.claimed < row.bound <= row.claimed, row


def test_noise_that_is_missing_or_shared_is_seen_without_statistics():
    change = jnp.array([[0.3, 0.3, -0.3, -0.3, 0.3]])
    own = jax.random.normal(jax.random.key(0), (1, 5))
    fooled = [own, own.at[0, 2].set(own[0, 0]), own.at[0, 4].set(0.0)]
    present, absent = ([float(every_coordinate(z + w * change, change, 1.0)) for z in fooled] for w in (1, 0))
    assert abs(present[0]) < 10
    assert abs(absent[0]) < 10
    assert min(present[1:]) > 50
    assert max(absent[1:]) < -50


def test_float32_normals_are_the_numbers_that_the_audit_thinks_they_are():
    everything = np.asarray(jax.jit(normal_of)(jnp.arange(NORMAL_NUMBERS)))
    assert 5.4 < np.abs(everything).max() <= NORMAL_REACH
    drawn = jax.random.normal(jax.random.key(1), (100_000,))
    assert np.isin(drawn, everything).all()


def test_tails_refute_float32_normals_and_not_our_noise():
    ours = attack_tails(trials=30_000, key=KEY)
    assert ours.beyond.bound == 0
    assert ours.counted.bound <= ours.counted.claimed < 10
    with mock.patch("efsgd_jax.privacy.feedback.add_noise", float32_noise):
        floats = attack_tails(trials=30_000, key=KEY, reach=NORMAL_REACH)
    assert floats.beyond.bound == math.inf
    with pytest.raises(ValueError, match="the reach is not 1"):
        attack_tails(trials=1000, key=KEY, reach=1.0)


def test_a_bound_by_tails_is_below_the_truth():
    rng = np.random.default_rng(0)
    present, absent = rng.normal(2, 1, 100_000), rng.normal(0, 1, 100_000)
    true = math.log(0.5 / 0.02275)  # of being above 2
    assert 0.9 * true < tail_bound(present, absent, 2.0, math.inf, 1e-5, 0.05) < true
    assert tail_bound(absent, absent[::-1], 2.0, math.inf, 1e-5, 0.05) == 0


MESH = """
import json, sys, jax
from efsgd_jax.audit.white_box import attack_mutants
assert jax.device_count() == 4
faults = attack_mutants(trials=10_000, delta=1e-2, key=jax.random.key(7), only="mesh")
print(json.dumps([[f.name, f.sound.bound, f.broken.bound, f.sound.claimed] for f in faults]))
"""


def test_faults_on_a_mesh_are_caught():
    """In a process with four virtual devices; on one there is no mesh, and no such mutant."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", MESH], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    faults = json.loads(done.stdout)
    assert len(faults) == 2
    for name, sound, broken, claimed in faults:
        assert 0.4 * claimed < sound <= claimed < broken, (name, sound, broken, claimed)
    if jax.device_count() == 1:
        assert not [m for m in tree_mutants() if "mesh" in m.name]


def moved(f, rows):
    """By how much row 0, which the worst of 300 batches has, moves ``f`` of a batch: float64."""
    moves = [np.float64(f(r)) - np.float64(f(r.at[0].set(0.0))) for r in rows]
    return max(np.linalg.norm(m) for m in moves)


def test_the_margin_is_what_keeps_a_clipped_sum_within_its_clip_norm():
    """Of one row more or less, in float32: without the margin some batches move by more than C, with it none."""
    grads = 3 * jax.random.normal(jax.random.key(0), (300, 20, 3))

    def worst():
        f = jax.jit(lambda rows: clip_and_sum({"w": rows}, 1.0).clipped_sum["w"])
        return moved(f, grads)

    assert 0.999 < worst() <= 1.0
    with mock.patch("efsgd_jax.privacy.clipped_sum.margin", return_value=0.0):
        assert worst() > 1.0


def test_a_row_moves_a_matrix_product_of_floats_further_than_an_exact_sum():
    """The sum that full-batch releases were made of before, ``member^T rows``: one row of length 1 moves it by more."""
    rows = jax.random.uniform(jax.random.key(0), (5000, 8))
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    groups = jnp.arange(5000) % 2
    member = jax.nn.one_hot(groups, 2)

    def product(rows):
        return jnp.matmul(member.T, rows, precision=jax.lax.Precision.HIGHEST)

    def exact(rows):
        release = Release(NoiseSupply(KEY, 0), 1.0, 0.0)
        return release.sums(release.rows(rows, 1.0), groups, 2)

    def worst(f):
        return moved(jax.jit(f), [jnp.roll(rows, i, axis=0) for i in range(20)])

    assert worst(product) > 1.0 + 1e-6
    assert worst(exact) <= 1.0


def test_adversarial_rows_are_within_their_clip_norm_and_their_sum_is_what_it_says():
    rows = adversarial_rows(3001)
    assert np.abs(rows).max() == rows[0, 0] == 3001
    assert rows[1:].astype(np.float64).sum() == 2**24 - 2 * 3001
    one_by_one = np.cumsum(rows[:, 0], dtype=np.float32)[-1] - np.cumsum(rows[1:, 0], dtype=np.float32)[-1]
    assert one_by_one > 2.9 * 3001
