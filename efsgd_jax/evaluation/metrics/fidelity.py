"""Fidelity metrics: the Fréchet distance between features of real and generated images, and the inception score."""

import numpy as np
from scipy.special import rel_entr

from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics.features import check_features, check_finite
from efsgd_jax.evaluation.metrics.kernel_distance import kernel_distance
from efsgd_jax.evaluation.metrics.manifold import manifold_scores

# Number of parts of the inception score, as published.
SPLITS = 10


def fidelity_scores(
    real_features: np.ndarray, fake_features: np.ndarray, fake_probabilities: np.ndarray
) -> dict[str, float]:
    """All fidelity metrics over one network's features and probabilities, with their default settings.

    Args:
      real_features: features of real images, ``[N, d]``.
      fake_features: features of generated images, ``[M, d]``, in an order that does not depend on the class.
      fake_probabilities: the network's class probabilities for the same generated images, ``[M, K]``, rows sum to 1.

    Returns:
      ``fid``; ``kid`` and ``kid_std``, its standard deviation over subsets; ``inception_score`` and
      ``inception_score_std``, its standard deviation over parts; ``precision``, ``recall``, ``density`` and
      ``coverage``; ``num_images``, which is M. They can be compared with FID and KID of papers only if the network is
      InceptionV3.

    Raises:
      UserError: too few images for one of the metrics (6 real and 10 generated images are enough), a NaN or infinity,
        or shapes that do not match.

    Formal guarantees:
      None: functions of real images without noise.
    """
    if len(fake_probabilities) != len(fake_features):
        raise UserError(
            f"{len(fake_features)} generated images have features, {len(fake_probabilities)} have probabilities; "
            "use the same images"
        )
    score, score_std = inception_score(fake_probabilities)
    manifold = manifold_scores(real_features, fake_features)
    distance, distance_std = kernel_distance(real_features, fake_features)
    return {
        "fid": frechet_distance_of_features(real_features, fake_features),
        "kid": distance,
        "kid_std": distance_std,
        "inception_score": score,
        "inception_score_std": score_std,
        **manifold._asdict(),
        "num_images": len(fake_features),
    }


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """The squared 2-Wasserstein distance between two Gaussians.

    ``|mu1 - mu2|^2 + tr(sigma1) + tr(sigma2) - 2 tr((sigma1^(1/2) sigma2 sigma1^(1/2))^(1/2))``

    The last trace is computed as the sum of the square roots of a symmetric matrix's eigenvalues. The square root of
    the non-symmetric ``sigma1 sigma2``, as in other code, can be complex if a covariance is singular.

    Args:
      mu1: mean of the first Gaussian, ``[d]``.
      sigma1: its covariance, ``[d, d]``, symmetric positive semi-definite, of any rank.
      mu2: mean of the second Gaussian, ``[d]``.
      sigma2: its covariance, as ``sigma1``.

    Returns:
      The distance: at least 0, in the features' squared unit.

    References:
      Dowson and Landau, The Frechet distance between multivariate normal distributions, 1982.
    """
    root = _symmetric_root(sigma1)
    eigenvalues = np.linalg.eigvalsh(root @ sigma2 @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    squared = np.sum((mu1 - mu2) ** 2) + np.trace(sigma1) + np.trace(sigma2) - 2.0 * cross
    return max(float(squared), 0.0)  # for equal Gaussians, rounding can make it slightly negative


def _symmetric_root(sigma: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(sigma)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def frechet_distance_of_features(real: np.ndarray, fake: np.ndarray) -> float:
    """``frechet_distance`` between the Gaussians with the means and covariances of two sets of features.

    It is FID only if the features are InceptionV3's. It is biased upwards, and more so for smaller samples. Numbers can
    therefore be compared only for equal sample sizes.

    Args:
      real: features of real images, ``[N, d]``.
      fake: features of generated images, ``[M, d]``.

    Raises:
      UserError: fewer than two rows in either, a NaN or infinity, or different d.

    References:
      Heusel et al., GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500.

    Formal guarantees:
      None: a function of real images without noise.
    """
    check_features(real, fake, 2, "a Frechet distance")
    return frechet_distance(*_moments(real), *_moments(fake))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = features.astype(np.float64)
    return x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))


def inception_score(probabilities: np.ndarray, splits: int = SPLITS) -> tuple[float, float]:
    """The inception score: mean and standard deviation of ``exp(E_x KL(p(y|x) || p(y)))`` over parts of the images.

    For each part, ``p(y)`` is the mean of ``p(y|x)`` over its images.

    Args:
      probabilities: class probabilities of generated images by a classifier, ``[N, K]``, rows sum to 1. Parts are
        contiguous, so that the order of the images must not depend on the class.
      splits: number of parts, whose sizes differ by at most one.

    Returns:
      The mean over the parts, between 1 and K, and the standard deviation over them, without Bessel's correction, as in
      the reference code.

    Raises:
      UserError: fewer rows than splits, or a NaN or infinity.

    References:
      Salimans et al., Improved Techniques for Training GANs, arXiv 1606.03498.

    Formal guarantees:
      None: the classifier was trained on real images without noise.
    """
    if not 1 <= splits <= len(probabilities):
        raise UserError(f"an inception score of {len(probabilities)} images in {splits} splits; use at least {splits}")
    check_finite(probabilities, "the probabilities", "an inception score")
    parts = np.array_split(probabilities.astype(np.float64), splits)
    scores = [np.exp(rel_entr(p, p.mean(axis=0)).sum(axis=1).mean()) for p in parts]
    return float(np.mean(scores)), float(np.std(scores))
