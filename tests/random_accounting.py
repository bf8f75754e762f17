"""Random sampled Gaussians over the whole range of epsilon and delta, and what must hold of each."""

import math
import time
from typing import Any, NamedTuple

import numpy as np
from dp_accounting.pld import privacy_loss_distribution

from efsgd_jax.errors import UserError
from efsgd_jax.privacy import calibrate_noise_multiplier, dp_sgd_event, epsilon
from efsgd_jax.privacy.accounting import COARSE, FINE, FINE_ORDERS
from efsgd_jax.privacy.calibration import MIN_NOISE_MULTIPLIER
from efsgd_jax.privacy.subset import PLDAccountant

# dp-accounting's own rounding errors, of 1e-16 for every step, are no longer small against a smaller delta, nor against
# the probabilities on a finer grid.
LEAST_DELTA, LEAST_GRID = 1e-9, 2e-5
CUT = 1e-9  # of delta, by which dp-accounting is more pessimistic


class Case(NamedTuple):
    """A sampled Gaussian, the target and delta."""

    q: float
    steps: int
    target: float
    delta: float


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    q = float(np.exp(rng.uniform(math.log(1e-4), 0))) if rng.random() < 0.9 else 1.0
    steps = int(np.exp(rng.uniform(0, math.log(1e5))))
    low, high = math.log(0.01), math.log(200)
    return Case(q, steps, float(np.exp(rng.uniform(low, high))), float(10 ** rng.uniform(-15, -2)))


def check(case: Case) -> dict[str, Any]:
    """Solves for the noise and compares; raises ``AssertionError``.

    Returns:
      The case, the noise, the grid, epsilon on the coarse and the fine one, dp-accounting's, and seconds.
    """
    begin = time.process_time()

    def event(sigma: float) -> Any:
        return dp_sgd_event(case.q, sigma, case.steps)

    found: dict[str, Any] = case._asdict()
    try:
        sigma = calibrate_noise_multiplier(event, case.target, case.delta)
    except UserError as error:
        return {**found, "refused": str(error)}
    found.update(sigma=sigma, seconds=round(time.process_time() - begin, 3))
    coarse, fine = (epsilon(event(sigma), case.delta, grid=grid) for grid in (COARSE, FINE))
    found.update(coarse=coarse, fine=fine)
    assert fine <= coarse * (1 + 1e-9) <= case.target * (1 + 2e-9), found
    if sigma > 2 * MIN_NOISE_MULTIPLIER:
        with_less = epsilon(event(0.99 * sigma), case.delta, grid=FINE)
        assert with_less > case.target, {**found, "with 1% less": with_less}
    found["rdp"] = epsilon(event(sigma), case.delta, accountant="rdp", orders=FINE_ORDERS)
    assert fine <= found["rdp"] * (1 + 1e-6), found
    grid = PLDAccountant(value_discretization_interval=COARSE).compose(event(sigma)).grid
    found["grid"] = grid
    if case.delta >= LEAST_DELTA and LEAST_GRID <= grid <= COARSE and sigma > 0.1:
        theirs = privacy_loss_distribution.from_gaussian_mechanism(
            sigma, value_discretization_interval=grid, sampling_prob=case.q, use_connect_dots=True
        )
        composed = theirs.self_compose(case.steps, CUT * case.delta)
        found["theirs"] = composed.get_epsilon_for_delta(case.delta)
        # Probabilities that rounding errors made of nothing: they add up to more than 1, by this much for all steps.
        surplus = case.steps * max(0.0, _mass(theirs._pmf_remove) - 1, _mass(theirs._pmf_add) - 1)
        # And its FFT's, for every step, anywhere.
        off = 1e-16 * case.steps
        assert coarse >= composed.get_epsilon_for_delta(case.delta * math.exp(surplus) + off) * (1 - 1e-6), found
        assert coarse <= found["theirs"] * (1 + 1e-4) + 1e-9, found
    return found


def _mass(pmf: Any) -> float:
    dense = pmf.to_dense_pmf()
    return float(dense._probs.sum() + dense._infinity_mass)
