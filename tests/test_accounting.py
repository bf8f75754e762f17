"""Epsilons against numbers that are known in closed form or were published, calibration, and the ledger's stop."""

import math

import dp_accounting
import pytest
from dp_accounting import pld
from scipy import optimize, stats

from efsgd_jax.errors import UserError
from efsgd_jax.privacy import DpSgdMechanism, Ledger, calibrate_mechanism, dp_sgd_event, epsilon
from efsgd_jax.privacy.accounting import COARSE, FINE
from efsgd_jax.privacy.subset import ADD_OR_REMOVE_ONE, REPLACE_ONE


def gaussian_epsilon(sigma, delta):
    """Balle & Wang, 2018, arXiv 1805.06530, Theorem 8: exact for one Gaussian release of sensitivity 1."""

    def delta_of(eps):
        a, b = 1 / (2 * sigma) - eps * sigma, -1 / (2 * sigma) - eps * sigma
        return stats.norm.cdf(a) - math.exp(eps) * stats.norm.cdf(b)

    return optimize.brentq(lambda e: delta_of(e) - delta, 0, 100)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (5.0, 25), (2.0, 9)])
def test_without_sampling_it_is_the_gaussian_mechanism(sigma, steps):
    exact = gaussian_epsilon(sigma / math.sqrt(steps), 1e-5)
    assert epsilon(dp_sgd_event(1.0, sigma, steps), 1e-5) == pytest.approx(exact, rel=2e-3)
    assert epsilon(dp_sgd_event(1.0, sigma, steps), 1e-5) >= exact - 1e-6


def test_a_known_run_has_its_known_epsilon_by_pld_and_rdp():
    event = dp_sgd_event(256 / 60000, 0.5433, 4000)
    assert epsilon(event, 1e-5) == pytest.approx(8.60, abs=0.01)
    assert epsilon(event, 1e-5, accountant="rdp") == pytest.approx(9.99, abs=0.02)


def test_truncation_is_accounted_for():
    plain = epsilon(dp_sgd_event(0.1, 1.5, 100), 1e-5, grid=COARSE)
    tight = epsilon(dp_sgd_event(0.1, 1.5, 100, dataset_size=1000, capacity=105), 1e-5, grid=COARSE)
    ample = epsilon(dp_sgd_event(0.1, 1.5, 100, dataset_size=1000, capacity=160), 1e-5, grid=COARSE)
    assert tight > plain * 1.02
    assert ample == pytest.approx(plain, rel=5e-3)
    with pytest.raises(ValueError, match="rdp"):
        epsilon(dp_sgd_event(0.1, 1.5, 1, dataset_size=1000, capacity=105), 1e-5, accountant="rdp")


def test_a_step_that_is_kept_composes_as_dp_accounting_does():
    for steps in (1, 7, 7, 200):
        event = dp_sgd_event(0.1, 1.1, steps, dataset_size=900, capacity=130)
        theirs = pld.PLDAccountant(value_discretization_interval=COARSE).compose(event).get_epsilon(1e-5)
        assert epsilon(event, 1e-5, grid=COARSE) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("sigma", [0.0, 1e-9, 0.005])
def test_nearly_no_noise_has_no_bound(sigma):
    for sizes in ({}, {"dataset_size": 900, "capacity": 130}):
        assert epsilon(dp_sgd_event(0.1, sigma, 5, **sizes), 1e-5) == math.inf
    if sigma:
        for relation in (ADD_OR_REMOVE_ONE, REPLACE_ONE):
            gaussian = dp_accounting.GaussianDpEvent(sigma)
            assert epsilon(gaussian, 1e-5, neighbouring_relation=relation) == math.inf


MECHANISM = DpSgdMechanism(1000, 0.1, 160, 1.5)


@pytest.mark.parametrize("target", [0.5, 3.0, 10.0])
def test_calibration_meets_the_target_and_wastes_little(target):
    solved = calibrate_mechanism(MECHANISM, 100, target, 1e-5)
    spent = epsilon(solved.event(100), 1e-5)
    assert 0.98 * target < spent <= target


def test_a_large_delta_leaves_rdp_far_behind():
    solved = calibrate_mechanism(MECHANISM, 100, 10.0, 0.5)
    assert 9.5 < epsilon(solved.event(100), 0.5, grid=COARSE) <= 10.0


def test_a_report_is_computed_on_the_fine_grid(monkeypatch):
    monkeypatch.setattr("efsgd_jax.privacy.ledger.FINE", FINE)  # which elsewhere in the tests is the coarse one
    fine, coarse = (MECHANISM.epsilon(100, 1e-5, grid=grid) for grid in (FINE, COARSE))
    assert Ledger(MECHANISM, math.inf, 1e-5, 100).report(100)["pld"] == fine < coarse


def test_unreachable_targets_are_errors():
    with pytest.raises(UserError, match="unreachable"):
        calibrate_mechanism(MECHANISM, 100, 1e-9, 1e-12)
    with pytest.raises(UserError, match="nothing is promised"):
        calibrate_mechanism(MECHANISM, 100, 1e9, 1e-5)


def test_the_ledger_stops_at_the_target_never_after():
    ledger = Ledger(MECHANISM, target_epsilon=2.0, delta=1e-5, planned_steps=100)
    assert 0 < ledger.steps < 100
    assert ledger.spent(ledger.steps) <= 2.0 < ledger.spent(ledger.steps + 1)
    assert Ledger(MECHANISM, 1e-3, 1e-5, 100).steps == 0
    free = Ledger(MECHANISM._replace(noise_multiplier=0.0), math.inf, 1e-5, 100)
    assert free.steps == 100
    assert free.spent(1) == math.inf


@pytest.mark.parametrize(
    ("steps", "every", "start", "ends"),
    [
        (10, 4, 0, [4, 8, 10]),
        (10, 4, 4, [8, 10]),
        (10, 4, 6, [8, 10]),
        (10, 4, 10, []),
        (3, 4, 0, [3]),
        (1000, 10, 0, [*range(20, 1001, 20)]),
        (1001, 10, 900, [930, 960, 990, 1001]),
    ],
)
def test_blocks_end_where_rows_do_and_say_what_will_be_spent(steps, every, start, ends):
    ledger = Ledger(MECHANISM, math.inf, 1e-5, steps)
    blocks = ledger.blocks(every, start)
    assert [end for end, _ in blocks] == ends
    assert all(spent == MECHANISM.epsilon(end, 1e-5, grid=COARSE) for end, spent in blocks[:3])


def test_hidden_feedback_costs_epsilon_in_every_later_step():
    hidden = MECHANISM._replace(feedback="hidden", feedback_l2_norm_clip=0.1, noise_multiplier=8.0)
    plain = MECHANISM._replace(noise_multiplier=8.0)
    ledger = Ledger(hidden, math.inf, 1e-5, 100)
    # The residual alone: T releases of sensitivity 2 C2 that no sampling amplifies.
    residual_only = gaussian_epsilon(8.0 / (2 * 0.1 * math.sqrt(100)), 1e-5)
    assert ledger.spent(100) > residual_only
    assert ledger.spent(100) > 2 * epsilon(plain.event(100), 1e-5)
    # The best split is better than the middle, and solving for the noise finds it.
    assert epsilon(ledger.event(100), 1e-5) <= epsilon(hidden.event(100), 1e-5)
    solved = calibrate_mechanism(hidden, 100, 3.0, 1e-5)
    assert Ledger(solved, 3.0, 1e-5, 100).spent(100) == pytest.approx(3.0, rel=0.03)
