"""``efsgd privacy`` and the published accountings."""

import math
import re

import jax
import pytest

from efsgd_jax import UserError
from efsgd_jax.cli.privacy import accountant_rows, lineage_rows, main, mode_rows
from efsgd_jax.privacy import (
    Budget,
    Composition,
    DpSgdMechanism,
    FullBatchMechanism,
    PlannedPhase,
    calibrate_plan,
    calibrate_steps,
    dp_sgd_event,
    epsilon,
    overflow_probability,
    sample_capacity,
)


def test_the_table_has_the_published_epsilons_and_what_the_code_spends():
    values = [float(value) for _, value in lineage_rows()]
    assert values == pytest.approx([9.99, 9.24, 360, 329, 610, 379, 5.51, 0.788], rel=2e-3)


def test_pld_proves_a_smaller_epsilon_than_rdp():
    assert accountant_rows() == [("RDP", "9.989"), ("PLD", "8.601")]


def test_at_one_epsilon_only_hidden_feedback_needs_more_noise():
    rows = {name.split(",")[0] + name[-1]: value for name, value in mode_rows(steps=500)}
    sigma = {name: float(re.match(r"sigma ([\d.]+)", value)[1]) for name, value in rows.items()}
    assert sigma["nonee"] == sigma["private2"] == pytest.approx(sigma["local1"], rel=1e-3)
    assert sigma["hidden1"] > 10 * sigma["nonee"]


def test_local_feedback_is_charged_for_batches_that_overflow():
    n, q, sigma, steps, delta = 60_000, 512 / 60_000, 0.7, 1000, 1e-5
    local = DpSgdMechanism(n, q, sample_capacity(n, q, overflow_probability=1e-25), sigma, 1.0, "local", 1.0)
    plain = epsilon(dp_sgd_event(q, sigma, steps), delta)
    assert plain < local.epsilon(steps, delta) < plain + 0.01
    # At six standard deviations exp(epsilon) T p is more than delta: no guarantee, and it says so.
    tight = local._replace(capacity=sample_capacity(n, q))
    assert overflow_probability(n, q, tight.capacity) < 1e-7
    assert tight.epsilon(steps, delta) == math.inf


def test_only_poisson_samples_have_an_event():
    shuffled = DpSgdMechanism(100, 0.1, 100, 1.0, sampling="shuffle")
    with pytest.raises(ValueError, match="only Poisson"):
        shuffled.event(3)
    with pytest.raises(ValueError, match="only Poisson"):
        shuffled.sample(jax.random.key(0))


def test_steps_are_the_most_that_the_target_allows():
    def spent(t):
        return epsilon(dp_sgd_event(0.01, 1.0, t), 1e-5, accountant="rdp") if t else 0.0

    steps = calibrate_steps(spent, 2.0, 10_000)
    assert spent(steps) <= 2.0 < spent(steps + 1)
    assert calibrate_steps(spent, 100.0, 50) == 50


def test_phases_share_one_target_epsilon():
    n = 10_000
    gradients = DpSgdMechanism(n, 0.01, 200, 0.0)
    plan = [
        PlannedPhase("sums", FullBatchMechanism(n, 0.0), 1, Budget("sums", 0.2)),
        PlannedPhase("more sums", FullBatchMechanism(n, 0.0, share=0.5, steps=3), 3, Budget("training", 0.6)),
        PlannedPhase("between", None, 7),
        PlannedPhase("gradients", gradients, 50, Budget("training", 0.6)),
        PlannedPhase("last", FullBatchMechanism(n, 0.0), 1, Budget("last", 0.2)),
    ]
    solved = calibrate_plan(plan, 5.0, 1e-5)
    assert [p.name for p in solved] == [p.name for p in plan]
    noise = [p.mechanism.noise_multiplier for p in solved if p.mechanism]
    assert noise[1] == noise[2]
    composed = Composition(solved)
    assert composed.total_steps == 1 + 3 + 50 + 1
    for steps, target in [(1, 1.0), (54, 4.0), (55, 5.0)]:
        assert 0.97 * target < composed.epsilon(steps, 1e-5, grid=1e-3) <= target
    one = Composition(solved[:1])
    assert composed.epsilon(1, 1e-5) == one.epsilon(1, 1e-5)  # what has not begun charges nothing
    with pytest.raises(UserError, match="add up to 1"):
        calibrate_plan(plan[:-1], 5.0, 1e-5)


BASE = ["--dataset_size=60000", "--expected_batch_size=512", "--steps=20000"]


def test_flags_print_the_epsilon_noise_or_steps_that_they_leave_open(capsys):
    assert main([*BASE, "--epsilon=10"]) == 0
    out = capsys.readouterr().out
    spent = float(re.search(r"epsilon by PLD \(proven\) +([\d.]+)", out)[1])
    assert 9.9 < spent <= 10
    assert main([*BASE, "--noise_multiplier=0.88"]) == 0
    again = float(re.search(r"epsilon by PLD \(proven\) +([\d.]+)", capsys.readouterr().out)[1])
    assert again == pytest.approx(spent, rel=0.01)
    assert main([*BASE, "--noise_multiplier=0.88", "--epsilon=5"]) == 0
    assert re.search(r"steps +\d+ of 20000", capsys.readouterr().out)


def test_without_steps_it_says_what_they_are(capsys):
    flags = ["--dataset_size=50000", "--expected_batch_size=256", "--epsilon=2"]
    assert main([*flags, "--noise_multiplier=0.9"]) == 2
    assert "--steps is missing; give a number of at least 1; it is the largest" in capsys.readouterr().err


def test_a_config_prints_the_epsilon_that_it_spends(capsys):
    config = ["--config=configs/efsgd_digits.py", "--config.privacy.epsilon=3", "--config.train.steps=50"]
    assert main(["--dataset_size=1438", *config]) == 0
    out = capsys.readouterr().out
    assert 2.9 < float(re.search(r"epsilon by PLD \(proven\) +([\d.]+)", out)[1]) <= 3
    assert re.search(r"steps +50\n", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epsilon=1"], "--dataset_size"),
        (["--config=configs/efsgd_digits.py"], "--dataset_size"),
        (["--config=configs/efsgd_digits.py", "--dataset_size=1438", "--steps=3"], "--steps and --config"),
        (["--config=configs/efsgd_digits.py", "--dataset_size=100"], "only N = 100"),
        (BASE, "--epsilon, --noise_multiplier or both"),
        ([*BASE, "--epsilon=-1"], "above 0"),
        ([*BASE, "--epsilon=1", "--delta=2"], "--delta"),
        ([*BASE, "--epsilon=1", "--feedback=hidden"], "--feedback_l2_norm_clip"),
        ([*BASE, "--epsilon=1", "--colour=red"], "--colour"),
        (["--dataset_size=10", "--expected_batch_size=20", "--steps=3", "--epsilon=1"], "above N = 10"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
