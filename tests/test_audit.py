"""The audit: sound mechanisms survive it, tight claims are nearly reached, and every fault is caught."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.audit import Game, ShardGame, audit, lower_bound, sound_games
from efsgd_jax.audit.bounds import area_under_curve, one_run_lower_bound, true_positive_rate
from efsgd_jax.audit.canaries import audit_run, make_canaries
from efsgd_jax.audit.games import play
from efsgd_jax.audit.membership import audit_release, nearness
from efsgd_jax.audit.mutants import mutants
from efsgd_jax.audit.suite import mechanism
from efsgd_jax.audit.white_box import attack_mutants, mutants_table, to_table
from efsgd_jax.cli.audit import main
from efsgd_jax.data import ImageSpec
from efsgd_jax.privacy import epsilon as epsilon_of
from efsgd_jax.privacy import feedback, gaussian_event

DELTA = 1e-2
# Fixed keys: a bound that holds with 95% confidence would otherwise fail one run in twenty.
KEY = jax.random.key(7)


@pytest.mark.parametrize("first", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))])
def test_tight_claims_are_nearly_reached_and_never_passed(first):
    games = [g for g in sound_games(quick=True) if g.tight and isinstance(g, Game | ShardGame)]
    assert {g.mechanism.feedback for g in games} == {"none", "hidden", "local", "private"}
    for row in audit(games[first::3], trials=100_000, delta=DELTA, key=KEY):
        assert 0.8 * row.claimed <= row.bound <= row.claimed, row


@pytest.mark.slow
def test_no_sampler_or_clipping_method_gives_more_away_than_claimed():
    wanted = ("Poisson, vmap, groups", "Poisson, microbatched", "full batch, per example, T = 4", "vector")
    games = [g for g in sound_games() if any(w in g.name for w in wanted)]
    assert len(games) > 15
    for row in audit(games[::3], trials=10_000, delta=DELTA, key=KEY):
        assert 0.0 < row.bound <= row.claimed, row


MUTANTS = [mutant.name for mutant in mutants()]


@pytest.mark.parametrize(
    "name", [pytest.param(m, marks=[pytest.mark.slow] * (i % 5 > 0)) for i, m in enumerate(MUTANTS)]
)
def test_every_fault_is_caught(name):
    assert len(MUTANTS) >= 24
    (fault,) = attack_mutants(trials=10_000, delta=DELTA, key=KEY, significance=0.05 / len(MUTANTS), only=name)
    assert fault.sound.bound <= fault.sound.claimed, fault
    assert fault.broken.bound > fault.broken.claimed, fault
    assert mutants_table([fault]).count("detected") == 1


@pytest.mark.parametrize("mutant", mutants(), ids=MUTANTS)
def test_every_fault_is_in_the_program_that_is_attacked(mutant):
    """A patch of a function that nothing calls any more would be a fault that no attack can detect."""

    def program(game):
        # A function made here: a cached trace of the sound game would be of the sound library.
        return str(jax.make_jaxpr(lambda present, key: game.trial(present, key))(jnp.array(True), KEY))

    sound = program(mutant.game)
    assert program(mutant.game) == sound
    with mutant.broken() as broken:
        assert program(broken) != sound


def test_a_mutant_leaves_the_library_as_it_was():
    sound = feedback.add_noise
    with mutants()[0].broken():
        assert feedback.add_noise is not sound
    assert feedback.add_noise is sound


def test_a_bound_of_a_known_gaussian_is_below_its_epsilon_and_near_it():
    rng = np.random.default_rng(0)
    true = epsilon_of(gaussian_event(1.0), DELTA)
    bounds = [lower_bound(rng.normal(1.0, 1, 40_000), rng.normal(0.0, 1, 40_000), DELTA) for _ in range(5)]
    assert all(0.8 * true < bound < true for bound in bounds)
    assert lower_bound(rng.normal(size=10_000), rng.normal(size=10_000), DELTA) < 0.2


def test_scores_without_the_canary_do_not_depend_on_it():
    """Neighbouring batches differ in the canary only: if its gradient is nearly zero, no score tells them apart."""
    game = Game("nothing to see", mechanism("none", "Poisson", 1.0), scales=(1e-6,) * 3)
    game = dataclasses.replace(game, score=lambda seen, change, q: seen.sum())
    scores = play(game, *(jax.random.split(jax.random.fold_in(KEY, i), 20_000) for i in (0, 1)))
    assert abs(area_under_curve(*scores) - 0.5) < 0.015


def test_refutation_is_shown():
    full = mechanism("none", "full batch", 1.0)
    honest = Game("honest", full)
    lying = Game(
        "lying", full, divide=lambda mean, mask: jax.tree.map(lambda x: 0 * x, mean), score=lambda s, c, q: s[0, 0]
    )
    rows = list(audit([honest, lying], trials=5000, delta=DELTA, key=KEY))
    assert rows[1].bound == 0  # constant scores prove nothing
    table = to_table([rows[0]._replace(bound=9.0), rows[1]])
    assert table.count("REFUTED") == 1


@pytest.fixture(scope="module")
def one_run_config(small_config):
    config = small_config.copy_and_resolve_references().unlock()
    config.train.update(steps=50, expected_batch_size=256)
    config.privacy.epsilon = 0.5
    return config


@pytest.mark.slow
def test_canaries_bound_a_run_below_its_claim_and_refute_one_without_noise(one_run_config, monkeypatch):
    result = audit_run(one_run_config, canaries=80, seed=3, progress=False)
    assert result.claimed == pytest.approx(0.5, rel=0.01)
    assert max(result.bounds.values()) <= result.claimed

    monkeypatch.setattr(feedback, "add_noise", lambda tree, std, moved, keys: tree)
    broken = audit_run(one_run_config, canaries=80, seed=3, progress=False)
    assert broken.curves["white box"] > 0.8
    assert broken.bounds["white box"] > broken.claimed


def test_canaries_are_distinct_images_of_the_data_sets_shape():
    images, labels = make_canaries(ImageSpec(28, 3, 5), 50, np.random.default_rng(0))
    assert images.shape == (50, 28, 28, 3)
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(50, -1), axis=0)) == 50
    assert set(labels) <= set(range(5))


def test_released_copies_are_found():
    rng = np.random.default_rng(0)
    data, labels = rng.integers(256, size=(400, 8, 8, 1), dtype=np.uint8), rng.integers(4, size=400)
    copies = data[:200], labels[:200]
    members, others = nearness(data[:200], labels[:200], *copies), nearness(data[200:], labels[200:], *copies)
    assert (members > -0.01).all()
    assert area_under_curve(members, others) == 1
    assert true_positive_rate(members, others, 0.01) == 1
    assert one_run_lower_bound(members, others, 1e-5) > 3
    assert nearness(data[:1], np.array([9]), *copies) == -math.inf


@pytest.mark.slow
def test_a_release_of_a_short_run_tells_nothing(finished_run, capsys):
    result = audit_release(finished_run.workdir)
    assert result.claimed == pytest.approx(finished_run.epsilon)
    assert result.bound <= result.claimed
    assert abs(result.curve - 0.5) < 0.1
    assert main(["--workdir", str(finished_run.workdir)]) == 0
    kept = json.loads((finished_run.workdir / "private" / "audit.json").read_text())
    assert (kept["bound"], kept["claimed"]) == (result.bound, finished_run.epsilon)
    assert "epsilon is at least" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--trials=10"], "--trials"),
        (["--delta=2"], "--delta"),
        (["--workdir=nowhere"], "no finished run"),
        (["--workdir=x", "--config=configs/digits.py"], "one thing at a time"),
        (["--config=configs/digits.py", "--canaries=3"], "canaries"),
        (["--config.privacy.nothing=3"], "unknown config key"),
        (["--config=none.py"], "does not exist"),
        (["--trails=10"], "--help"),
    ],
)
def test_mistakes_are_one_line(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_jax_privacy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax_privacy", None)
    from efsgd_jax import UserError

    with pytest.raises(UserError, match=r"efsgd_jax\[audit\]"):
        lower_bound(np.ones(3), np.zeros(3), DELTA)
