"""Lower bounds of epsilon from the scores of attacks, computed by jax-privacy's auditor."""

from typing import Any

import numpy as np

from efsgd_jax.errors import UserError


def statistics() -> Any:
    """Returns jax-privacy's module ``auditing``.

    Raises:
      UserError: jax-privacy is not installed.
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
    """A lower bound of epsilon, from many independent runs with the canary and many without.

    Half of the scores choose a threshold. The other half gives Clopper-Pearson bounds of both error rates at that
    threshold (Nasr et al., 2021, arXiv 2101.04535).

    Args:
      present: ``[R]``, the attack's score for each run on the data with the canary; higher scores mean "present".
      absent: ``[R']``, the attack's score for each run without the canary.
      delta: the delta at which the bound holds.
      significance: the largest probability with which the bound exceeds the true epsilon.

    Raises:
      UserError: jax-privacy is not installed.
    """
    split = statistics().Split(0.5, seed=0)  # a fixed seed suffices: the scores are in random order already
    auditor = _auditor(present, absent)
    return float(auditor.epsilon_clopper_pearson(significance, delta, one_sided=False, threshold_strategy=split))


def one_run_lower_bound(present: np.ndarray, absent: np.ndarray, delta: float, *, significance: float = 0.05) -> float:
    """A lower bound of epsilon, from one run in which each of many canaries took part with probability 1/2.

    The method is that of Steinke, Nasr & Jagielski, 2023, arXiv 2305.08846, with one score for each canary and a
    Bonferroni correction over all thresholds.

    Args:
      present: ``[m]``, the scores of the canaries that took part.
      absent: ``[m']``, the scores of the canaries that did not.
      delta: the delta at which the bound holds, above 0.
      significance: the largest probability with which the bound exceeds the true epsilon.

    Raises:
      UserError: jax-privacy is not installed.
    """
    return float(_auditor(present, absent).epsilon_one_run(significance, delta))


def area_under_curve(present: np.ndarray, absent: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a present canary scores above an absent one; 0.5 is guessing."""
    return float(_auditor(present, absent).attack_auroc())


def true_positive_rate(present: np.ndarray, absent: np.ndarray, false_positive_rate: float) -> float:
    """The attack's true positive rate at the given false positive rate."""
    return float(_auditor(present, absent).tpr_at_given_fpr(false_positive_rate))
