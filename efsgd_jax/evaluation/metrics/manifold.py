"""Precision, recall, density and coverage: which images lie in the neighbourhoods of which others."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.evaluation.metrics.features import check_features

# k: an image's neighbourhood reaches to its k-th nearest neighbour.
NEIGHBOURS = 5
# Number of images whose distances to all others are in memory at a time.
CHUNK = 1000


class ManifoldScores(NamedTuple):
    """Scores from the neighbourhoods of images in feature space; see ``manifold_scores``.

    Attributes:
      precision: share of the generated images that lie in the neighbourhood of at least one real image.
      recall: share of the real images that lie in the neighbourhood of at least one generated image.
      density: average number of real images' neighbourhoods that a generated image lies in, divided by k. At least 0;
        near 1 if real and generated images have the same distribution.
      coverage: share of the real images that have at least one generated image in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> ManifoldScores:
    """Computes precision, recall, density and coverage of generated images.

    The neighbourhood of an image is the open ball around it whose radius is the distance to its k-th nearest neighbour
    among the images of the same set (real or generated). Distances are Euclidean, rounded to float32 as in the
    reference code, prdc. Memory grows with N and M, not with their product.

    Args:
      real: features of real images, ``[N, d]``, finite.
      fake: features of generated images, ``[M, d]``, finite.
      k: number of neighbours, not counting the image itself.

    Raises:
      UserError: fewer than k + 1 rows in either, a NaN or infinity, or different d.

    References:
      Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, arXiv 1904.06991.
      Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, arXiv 2002.09797.

    Formal guarantees:
      None: a function of real images without noise.
    """
    check_features(real, fake, k + 1, f"precision and recall with {k} neighbours")
    real, fake = real.astype(np.float32), fake.astype(np.float32)
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    neighbourhoods = np.zeros(len(fake), np.int64)  # number of real images in whose neighbourhood each generated one is
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
