"""``DpEvent`` -> epsilon, by PLD and by RDP; composition over the phases of a run."""

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
# Of RDP. The coarse ones are for searching. The fine ones are for a third digit: dp-accounting's own orders are sparse
# near 1, where the best one is if epsilon is large, but orders that are not whole are slow.
COARSE_ORDERS = [1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 256, 512]
FINE_ORDERS = [*np.arange(1.01, 1.2, 0.01), *np.arange(1.2, 4, 0.02), *range(4, 64)]


def gaussian_event(noise_multiplier: float, steps: int = 1) -> dp_accounting.DpEvent:
    """``steps`` releases of a Gaussian mechanism on all records: exactly one with ``sigma / sqrt(steps)``.

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
      event: what was done to the data.
      delta: in (0, 1).
      accountant: ``"pld"`` (tight) or ``"rdp"``.
      grid: discretisation of the privacy loss for PLD; finer where a step's losses are small. Any gives an upper bound.
      orders: of RDP; None for dp-accounting's. Any give an upper bound.
      neighbouring_relation: add or remove one example, unless told otherwise.

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
    """Epsilon of something that is ``event`` but with a small probability; ``inf`` where that is too large.

    Args:
      failure_share: the part of delta that is kept for it, in [0, 1).
      failure: the probability, on each of two neighbours.

    Formal guarantees:
      Without the failure, ``(epsilon, delta_0)`` for both neighbours; hence ``delta = delta_0 + (1 + exp(epsilon)) p``
      with it. Here delta_0 is ``(1 - failure_share) delta``, and the rest must suffice.
    """
    spent = epsilon(
        event, (1 - failure_share) * delta, accountant=accountant, grid=grid,
        neighbouring_relation=neighbouring_relation,
    )  # fmt: skip
    if failure == 0:
        return spent
    allowed = failure_share * delta
    # In logarithms: exp(epsilon) overflows where the noise is nearly nothing.
    too_often = allowed == 0 or math.log(failure) + float(np.logaddexp(0.0, spent)) > math.log(allowed)
    return math.inf if too_often else spent


def after_queries(training: float, queries: Iterable[float]) -> float:
    """Epsilon of a training, at its delta, and of queries after it that spend these epsilons at delta 0: the sum.

    Formal guarantees:
      Holds if every query, its epsilon, and whether there is a next one are chosen by what was released before. For
      neighbours D and D', an outcome S of both, and a generator g, let h(g) be the chance that the answers complete g
      to an element of S. What the answers to g amount to is at most exp(sum) times as likely under D as under D', so
      ``P(S) = E_D h_D <= e^training E_D' h_D + delta <= e^(training + sum) E_D' h_D' + delta``: h is in [0, 1]. PLD
      would add less, but is proven for epsilons that are fixed beforehand (Rogers, Roth, Ullman, Vadhan, 2016, arXiv
      1605.08294), and whoever sees a value decides about the next.
    """
    return math.fsum([training, *queries])
