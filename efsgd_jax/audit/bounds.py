"""Lower bounds of epsilon from attack scores, by jax-privacy's auditor."""

from typing import Any

import numpy as np

from efsgd_jax.errors import UserError


def statistics() -> Any:
    """jax-privacy's ``auditing``.

    Raises:
      UserError: it is not installed.
    """
    try:
        from jax_privacy import auditing
    except ImportError as error:
        raise UserError("the audit's statistics are jax-privacy's; install them: pip install 'efsgd_jax[audit]'") from (
            error
        )
    return auditing


def _auditor(present: np.ndarray, absent: np.ndarray) -> Any:
    return statistics().CanaryScoreAuditor(np.asarray(present, np.float64), np.asarray(absent, np.float64))


def lower_bound(present: np.ndarray, absent: np.ndarray, delta: float, *, significance: float = 0.05) -> float:
    """Epsilon is at least this, from many independent runs with the canary and many without.

    Half of the scores choose a threshold, the other half gives Clopper-Pearson bounds of both error rates there
    (Nasr et al., 2021, arXiv 2101.04535).

    Args:
      present: ``[R]``, the attack's score of each run on the data with the canary; higher for "present".
      absent: ``[R']``, of each run without it.
      delta: of the claim.
      significance: the chance that the bound exceeds the true epsilon.

    Raises:
      UserError: jax-privacy is not installed.
    """
    split = statistics().Split(0.5, seed=0)  # of scores that are in random order already
    auditor = _auditor(present, absent)
    return float(auditor.epsilon_clopper_pearson(significance, delta, one_sided=False, threshold_strategy=split))


def one_run_lower_bound(present: np.ndarray, absent: np.ndarray, delta: float, *, significance: float = 0.05) -> float:
    """Epsilon is at least this, from one run in which each of many canaries took part by the toss of a fair coin.

    Steinke, Nasr & Jagielski, 2023, arXiv 2305.08846; one score for each canary, Bonferroni over all thresholds.

    Args:
      present: ``[m]``, scores of the canaries that took part.
      absent: ``[m']``, scores of the others.
      delta: of the claim, above 0.
      significance: the chance that the bound exceeds the true epsilon.
    """
    return float(_auditor(present, absent).epsilon_one_run(significance, delta))


def area_under_curve(present: np.ndarray, absent: np.ndarray) -> float:
    """Chance that a present canary scores above an absent one; 0.5 is a coin."""
    return float(_auditor(present, absent).attack_auroc())


def true_positive_rate(present: np.ndarray, absent: np.ndarray, false_positive_rate: float) -> float:
    """Share of the present canaries that the attack finds when it accuses that share of the absent ones."""
    return float(_auditor(present, absent).tpr_at_given_fpr(false_positive_rate))
