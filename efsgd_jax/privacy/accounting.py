"""Epsilon of a ``DpEvent``, by PLD or RDP, also with a failure probability and with queries after a training run."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import dp_accounting
import numpy as np
from dp_accounting import rdp

from efsgd_jax.privacy.grid import COARSE as COARSE
from efsgd_jax.privacy.grid import FINE as FINE
from efsgd_jax.privacy.subset import PLDAccountant

Accountant = Literal["pld", "rdp"]
# Orders of RDP. The coarse ones are for searching. The fine ones give epsilon to about three digits: dp-accounting's
# own orders are sparse near 1, where the best order is if epsilon is large. Orders that are not integers are slow.
COARSE_ORDERS = [1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 256, 512]
FINE_ORDERS = [*np.arange(1.01, 1.2, 0.01), *np.arange(1.2, 4, 0.02), *range(4, 64)]


def gaussian_event(noise_multiplier: float, steps: int = 1) -> dp_accounting.DpEvent:
    """The event of ``steps`` Gaussian releases on all records: one Gaussian release with ``sigma / sqrt(steps)``.

    The two are exactly equivalent.

    Examples:
      >>> gaussian_event(2.0, steps=4)
      GaussianDpEvent(noise_multiplier=1.0)
    """
    return dp_accounting.GaussianDpEvent(noise_multiplier / steps**0.5)


def epsilon(
    event: dp_accounting.DpEvent,
    delta: float,
    *,
    accountant: Accountant = "pld",
    grid: float = FINE,
    orders: Sequence[float] | None = None,
    neighbouring_relation: dp_accounting.NeighboringRelation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
) -> float:
    """Epsilon of ``event`` at ``delta``; ``inf`` if there is no bound.

    Args:
      event: the event to be accounted for.
      delta: the delta of the guarantee, in (0, 1).
      accountant: ``"pld"`` (tight) or ``"rdp"``.
      grid: for PLD, the distance between two points of the grid of privacy losses. A finer grid is used if the
        losses of the composed mechanisms are small, and a coarser one if their range is large (``grid.refined``). Every
        grid gives an upper bound.
      orders: for RDP, the orders; None for those of dp-accounting. All give an upper bound.
      neighbouring_relation: the neighbouring relation; by default to add or remove one example.

    Raises:
      ValueError: the accountant does not support the event.

    Examples:
      >>> round(epsilon(gaussian_event(1.0), delta=1e-5), 2)
      4.38
    """
    if accountant == "pld":
        instance: dp_accounting.PrivacyAccountant = PLDAccountant(
            neighbouring_relation, value_discretization_interval=grid
        )
    else:
        instance = rdp.RdpAccountant(orders, neighbouring_relation)
    if not instance.supports(event):
        raise ValueError(f"the {accountant} accountant does not support {type(event).__name__}.")
    return float(instance.compose(event).get_epsilon(delta))


def epsilon_with_failure(
    event: dp_accounting.DpEvent,
    delta: float,
    failure_share: float,
    failure: float,
    *,
    accountant: Accountant = "pld",
    grid: float = FINE,
    neighbouring_relation: dp_accounting.NeighboringRelation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
) -> float:
    """Epsilon of a mechanism that equals ``event`` except with a small failure probability.

    Args:
      event: the event that holds unless there is a failure.
      delta: the delta of the guarantee, in (0, 1).
      failure_share: the part of delta that is reserved for the failure, in [0, 1).
      failure: the probability p of a failure, on each of two neighbouring data sets.
      accountant: see ``epsilon``.
      grid: see ``epsilon``.
      neighbouring_relation: see ``epsilon``.

    Returns:
      Epsilon; ``inf`` if the reserved part of delta does not cover the failure.

    Formal guarantees:
      If ``event`` satisfies ``(epsilon, delta_0)``, in both directions, the mechanism satisfies it with
      ``delta = delta_0 + (1 + exp(epsilon)) p``. Here delta_0 is ``(1 - failure_share) delta``, and
      ``(1 + exp(epsilon)) p`` must be at most ``failure_share delta``.
    """
    spent = epsilon(
        event, (1 - failure_share) * delta, accountant=accountant, grid=grid,
        neighbouring_relation=neighbouring_relation,
    )  # fmt: skip
    if failure == 0:
        return spent
    allowed = failure_share * delta
    # In logarithms, since exp(epsilon) overflows if there is hardly any noise.
    too_often = allowed == 0 or math.log(failure) + float(np.logaddexp(0.0, spent)) > math.log(allowed)
    return math.inf if too_often else spent


def after_queries(training: float, queries: Iterable[float]) -> float:
    """Epsilon of a training run and of queries after it, at the run's delta: the sum of their epsilons.

    A query is an answer that is computed on private data after training, such as a score that is released with noise.

    Args:
      training: epsilon of the training run, at its delta.
      queries: epsilons of the queries, each at delta 0.

    Formal guarantees:
      Every query, its epsilon, and whether there is a next query may be chosen from what was released before. For
      neighbours D and D', a set S of outcomes (a generator with all answers) and a generator g, let h_D(g) be the
      probability that g with the answers computed on D is in S. It is in [0, 1] and at most exp(sum) h_D'(g). Hence
      ``P(S) = E_D h_D <= e^training E_D' h_D + delta <= e^(training + sum) E_D' h_D' + delta``. PLD would give a
      smaller epsilon, but it is proven for epsilons that are fixed beforehand (Rogers, Roth, Ullman, Vadhan, 2016,
      arXiv 1605.08294), whereas here whoever sees an answer decides about the next query.
    """
    return math.fsum([training, *queries])
