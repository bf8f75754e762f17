"""Calibration over the whole range: epsilon from 0.01 to 200, delta down to 1e-15, and how epsilons are shown."""

import math
from decimal import Decimal

import pytest
from dp_accounting import GaussianDpEvent
from hypothesis import given
from hypothesis import strategies as st
from random_accounting import check, random_case
from test_accounting import gaussian_epsilon

from efsgd_jax.cli.privacy import main
from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon, format_lower_bound
from efsgd_jax.privacy import (
    DpSgdMechanism,
    FullBatchMechanism,
    Ledger,
    calibrate_mechanism,
    dp_sgd_event,
    epsilon,
    sample_capacity,
)
from efsgd_jax.privacy.accounting import COARSE, FINE
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism


def poisson(batch, n=60_000, **fields):
    q = batch / n
    return DpSgdMechanism(n, q, sample_capacity(n, q), 0.0)._replace(**fields)


@pytest.mark.parametrize(
    ("mechanism", "steps", "target", "delta", "sigma"),
    [
        (poisson(256), 2400, 0.1, 1e-5, 6.50),
        (poisson(600), 1000, 0.05, 1e-5, 18.35),
        (poisson(600), 1000, 0.03, 1e-5, 29.05),
        (poisson(600), 1000, 0.02, 1e-5, 41.74),
        (poisson(600), 1000, 0.01, 1e-15, 215.7),
        (DpSgdMechanism(100, 1.0, 100, 0.0), 10, 200, 1e-5, 0.195),
        (poisson(600, feedback="hidden", feedback_l2_norm_clip=0.1), 1000, 0.05, 1e-5, 384),
        (ShardMechanism(60_000, 1000, "parameter", 0.0, judges_per_step=4), 1000, 0.02, 1e-8, None),
        (ShardMechanism(60_000, 1000, "round_robin", 0.0), 1000, 150, 1e-15, None),
    ],
)
def test_noise_is_solved_for_within_one_percent_at_tiny_and_huge_epsilons(mechanism, steps, target, delta, sigma):
    solved = calibrate_mechanism(mechanism, steps, target, delta)
    if sigma:
        assert solved.noise_multiplier == pytest.approx(sigma, rel=0.01)
    ledger = Ledger(solved, target, delta, steps)
    assert ledger.steps == steps
    assert ledger.spent(steps, grid=FINE) <= ledger.spent(steps) <= target
    less = Ledger(solved._replace(noise_multiplier=0.99 * solved.noise_multiplier), math.inf, delta, steps)
    assert less.spent(steps, grid=FINE) > target


@pytest.mark.parametrize("sigma", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-9, 1e-15])
def test_a_gaussian_is_exact_at_any_delta(sigma, delta):
    exact = gaussian_epsilon(sigma, delta)
    found = epsilon(GaussianDpEvent(sigma), delta)
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 1e-3)
    # Steps without sampling are one Gaussian, composed here by FFT.
    assert epsilon(dp_sgd_event(1 - 1e-12, sigma * 10, 100), delta) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(i, marks=pytest.mark.slow) for i in range(6, 12))])
def test_random_mechanisms_meet_their_target_and_waste_under_one_percent_of_noise(seed):
    check(random_case(seed))


@pytest.mark.parametrize("delta", [1e-4, 1e-14])
@pytest.mark.parametrize("q", [1e-3, 0.3])
def test_more_noise_never_costs_more_and_more_steps_never_less(q, delta):
    by_noise = [epsilon(dp_sgd_event(q, s, 50), delta, grid=COARSE) for s in (0.4, 0.7, 1.5, 6.0, 40.0, 900.0)]
    assert by_noise == sorted(by_noise, reverse=True)
    by_steps = [epsilon(dp_sgd_event(q, 2.0, t), delta, grid=COARSE) for t in (1, 2, 10, 11, 500, 30_000)]
    assert by_steps == sorted(by_steps)


def test_what_cannot_be_solved_says_so_in_one_line():
    with pytest.raises(UserError, match="below 1e-18"):
        calibrate_mechanism(poisson(600), 10, 1.0, 1e-30)
    with pytest.raises(UserError, match="unreachable"):
        calibrate_mechanism(poisson(60_000), 10**6, 0.01, 1e-15)


def test_targets_and_steps_that_mean_nothing_are_refused():
    mechanism = FullBatchMechanism(1000, 0.0)
    for target in (float("nan"), 0.0, -1.0):
        with pytest.raises(UserError, match=r"epsilon is .*; it is a number above 0"):
            calibrate_mechanism(mechanism, 1, target, 1e-5)
    with pytest.raises(UserError, match="number of steps is 0"):
        calibrate_mechanism(mechanism, 0, 3.0, 1e-5)
    with pytest.raises(UserError, match="noise_multiplier=0 of a mechanism"):
        calibrate_mechanism(mechanism, 1, float("inf"), 1e-5)


def test_an_infinite_target_needs_no_noise(capsys):
    assert main(["--dataset_size=60000", "--expected_batch_size=512", "--steps=20", "--epsilon=inf"]) == 0
    assert "inf" in capsys.readouterr().out


@given(st.floats(0, 1e12), st.integers(1, 8))
def test_epsilons_are_rounded_up_and_bounds_down(value, digits):
    exact, up, down = Decimal(repr(value)), Decimal(format_epsilon(value, digits)), Decimal(
        format_lower_bound(value, digits)
    )  # fmt: skip
    unit = Decimal(1).scaleb(min(exact.adjusted() - digits + 1, 0)) if value else Decimal(0)
    assert down <= exact <= up
    assert up - down <= unit
    assert Decimal(format_epsilon(float(up), digits)) <= up + unit


def test_short_epsilons_stay_as_they_are():
    shown = [format_epsilon(x) for x in (10, 9.9903, 0.49940909, math.inf, 0.5, 9.9999, 0, 123456.7)]
    assert shown == ["10", "9.991", "0.4995", "inf", "0.5", "10", "0", "123457"]
    assert [format_lower_bound(x) for x in (0.49940909, 3.0, 2.999)] == ["0.499", "3", "2.99"]
