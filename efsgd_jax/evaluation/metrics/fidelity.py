"""Fidelity of synthetic images: distances between distributions of a network's features, and its confidence."""

import numpy as np
from scipy.special import rel_entr

from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics.features import check_features, check_finite
from efsgd_jax.evaluation.metrics.kernel_distance import kernel_distance
from efsgd_jax.evaluation.metrics.manifold import manifold_scores

SPLITS = 10


def fidelity_scores(
    real_features: np.ndarray, fake_features: np.ndarray, fake_probabilities: np.ndarray
) -> dict[str, float]:
    """Every score of one network's view of real and generated images, each with its function's defaults.

    Args:
      real_features: of real images, ``[N, d]``.
      fake_features: of generated images, ``[M, d]``, in an order that has nothing to do with the class.
      fake_probabilities: of the same images, ``[M, K]``, rows sum to 1.

    Returns:
      ``fid``, ``kid`` and its ``kid_std`` over subsets, ``inception_score`` and its ``inception_score_std`` over
      parts, ``precision``, ``recall``, ``density``, ``coverage``, and ``num_images``, which is M. What the papers
      call FID and KID they are only if the network is InceptionV3.

    Raises:
      UserError: too few images for one of them (6 real ones and 10 generated ones are enough), a NaN or infinity,
        shapes that do not belong together.

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
    """Squared 2-Wasserstein distance of two Gaussians.

    ``|mu1 - mu2|^2 + tr(sigma1) + tr(sigma2) - 2 tr((sigma1^(1/2) sigma2 sigma1^(1/2))^(1/2))``

    The last trace is the sum of the square roots of a symmetric matrix's eigenvalues: no square root of the
    non-symmetric ``sigma1 sigma2``, which goes complex when a covariance is singular.

    Args:
      mu1, mu2: means ``[d]``.
      sigma1, sigma2: covariances ``[d, d]``, symmetric positive semi-definite, of any rank.

    Returns:
      At least 0, in the features' squared unit.

    References:
      Dowson and Landau, The Frechet distance between multivariate normal distributions, 1982.
    """
    root = _symmetric_root(sigma1)
    eigenvalues = np.linalg.eigvalsh(root @ sigma2 @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    squared = np.sum((mu1 - mu2) ** 2) + np.trace(sigma1) + np.trace(sigma2) - 2.0 * cross
    return max(float(squared), 0.0)  # rounding can leave equal Gaussians just below 0


def _symmetric_root(sigma: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(sigma)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def frechet_distance_of_features(real: np.ndarray, fake: np.ndarray) -> float:
    """``frechet_distance`` of the Gaussians with the two samples' means and covariances.

    It is FID only if the features are InceptionV3's. It is biased upwards, the more the fewer samples, so only
    numbers of equal sample sizes compare.

    Args:
      real: ``[N, d]``.
      fake: ``[M, d]``.

    Raises:
      UserError: fewer than two rows in either, a NaN or infinity, different d.

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
    """``exp(E_x KL(p(y|x) || p(y)))`` of each of ``splits`` parts, ``p(y)`` the part's mean.

    Args:
      probabilities: of a classifier, ``[N, K]``, rows sum to 1, in an order that has nothing to do with the class:
        the parts are contiguous.
      splits: parts; those that do not divide N evenly differ by one in size.

    Returns:
      Mean and standard deviation (of the population of parts, as in the reference code), between 1 and K.

    Raises:
      UserError: fewer rows than splits, a NaN or infinity.

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
