"""Precision, recall, density and coverage: who lies within whose neighbourhoods."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.evaluation.metrics.features import check_features

NEIGHBOURS = 5
CHUNK = 1000


class ManifoldScores(NamedTuple):
    """Shares in [0, 1], but for the density, which is at least 0, and near 1 where both samples have one distribution.

    Attributes:
      precision: of the generated images in the neighbourhood of at least one real image.
      recall: of the real images in the neighbourhood of at least one generated image.
      density: real neighbourhoods that a generated image lies in, on average, divided by k.
      coverage: of the real images with at least one generated image in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> ManifoldScores:
    """An image's neighbourhood is the open ball as wide as the distance to its k-th neighbour among its own kind.

    Distances are Euclidean, rounded to float32 as in the reference code, prdc. Memory grows with N and M, not with
    their product.

    Args:
      real: ``[N, d]``, finite.
      fake: ``[M, d]``, finite.
      k: neighbours; an image is not its own.

    Raises:
      UserError: fewer than k + 1 rows in either, a NaN or infinity, different d.

    References:
      Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, arXiv 1904.06991.
      Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, arXiv 2002.09797.

    Formal guarantees:
      None: a function of real images without noise.
    """
    check_features(real, fake, k + 1, f"precision and recall with {k} neighbours")
    real, fake = real.astype(np.float32), fake.astype(np.float32)
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    neighbourhoods = np.zeros(len(fake), np.int64)  # of real images, that each generated one lies in
    recalled = covered = 0
    for start in range(0, len(real), CHUNK):
        rows = slice(start, start + CHUNK)
        distances = euclidean_distances(real[rows], fake)
        neighbourhoods += np.sum(distances < real_radii[rows, np.newaxis], axis=0)
        recalled += int(np.any(distances < fake_radii, axis=1).sum())
        covered += int((np.min(distances, axis=1) < real_radii[rows]).sum())
    return ManifoldScores(
        precision=float(np.mean(neighbourhoods > 0)),
        recall=recalled / len(real),
        density=float(np.mean(neighbourhoods)) / k,
        coverage=covered / len(real),
    )


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Each row's distance to its k-th nearest other row: float32 ``[N]``."""
    distances, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x).kneighbors()
    return distances[:, -1].astype(np.float32)
