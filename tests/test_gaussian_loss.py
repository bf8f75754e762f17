"""Privacy losses on arrays against dp-accounting's, point by point and composed."""

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution, privacy_loss_mechanism

from efsgd_jax.privacy.gaussian_loss import Adjacency, GaussianPrivacyLoss, one_step

RNG = np.random.default_rng(0)
RANDOM = [(float(np.exp(RNG.uniform(-1, 3))), float(np.exp(RNG.uniform(-9, 0)))) for _ in range(20)]
CORNERS = [(0.02, 0.3), (200.0, 0.01), (1.0, 1.0), (0.5, 0.999999), (1.0, 1e-7)]


@pytest.mark.parametrize("adjacency", Adjacency)
@pytest.mark.parametrize(("sigma", "share"), RANDOM + CORNERS)
def test_deltas_are_dp_accountings(sigma, share, adjacency):
    ours, theirs = (
        cls(sigma, sampling_prob=share, adjacency_type=adjacency)
        for cls in (GaussianPrivacyLoss, privacy_loss_mechanism.GaussianPrivacyLoss)
    )
    bounds = theirs.connect_dots_bounds()
    epsilons = np.linspace(bounds.epsilon_lower - 1, bounds.epsilon_upper + 1, 300)
    epsilons = np.concatenate([epsilons, [0.0, 1e-12, -1e-12, 40.0, -40.0]])
    wanted = theirs.get_delta_for_epsilon(epsilons)
    np.testing.assert_allclose(ours.get_delta_for_epsilon(epsilons), wanted, rtol=0, atol=1e-14)
    assert ours.get_delta_for_epsilon(0.5) == theirs.get_delta_for_epsilon(0.5)


@pytest.mark.parametrize(
    ("sigma", "share", "size", "capacity"),
    [
        (1.0, 0.01, 60_000, 700),
        (0.5, 0.05, 1000, 60),
        (0.7, 0.3, 100, 40),
        (3.0, 0.01, 60_000, 600),
        (2.0, 0.2, 50, 50),
    ],
)
def test_a_sample_that_is_cut_is_dp_accountings(sigma, share, size, capacity):
    event = dp_accounting.TruncatedSubsampledGaussianDpEvent(
        dataset_size=size, sampling_probability=share, truncated_batch_size=capacity, noise_multiplier=sigma
    )
    theirs = privacy_loss_distribution.from_truncated_subsampled_gaussian_mechanism(size, share, capacity, sigma, 1e-3)
    for steps in (1, 300):
        ours = one_step(event, 1e-3).self_compose(steps).get_epsilon_for_delta(1e-5)
        assert ours == pytest.approx(theirs.self_compose(steps).get_epsilon_for_delta(1e-5), rel=1e-8)


@pytest.mark.parametrize("share", [1.0, 0.03])
def test_a_sample_that_is_not_cut_is_dp_accountings(share):
    event = dp_accounting.PoissonSampledDpEvent(share, dp_accounting.GaussianDpEvent(0.9))
    theirs = privacy_loss_distribution.from_gaussian_mechanism(
        0.9, value_discretization_interval=1e-3, sampling_prob=share
    )
    ours = one_step(event, 1e-3).self_compose(50).get_epsilon_for_delta(1e-5)
    assert ours == pytest.approx(theirs.self_compose(50).get_epsilon_for_delta(1e-5), rel=1e-9)
