"""Kernel distance of two samples of features: KID, if the features are InceptionV3's."""

import numpy as np

from efsgd_jax.evaluation.metrics.features import check_features

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020


def kernel_distance(
    real: np.ndarray, fake: np.ndarray, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = SEED
) -> tuple[float, float]:
    """Unbiased estimates of the squared maximum mean discrepancy with ``k(x, y) = (x.y / d + 1)^3``, on subsets.

    ``mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)``

    Unlike a Frechet distance's, its expectation does not depend on the number of images; it can fall below 0. Subsets,
    their number, their size and the seed are torch-fidelity's defaults, with ``fake`` as its first input: equal
    features give its number.

    Args:
      real: ``[N, d]``, finite.
      fake: ``[M, d]``, finite.
      subsets: how many times a subset of both is drawn.
      subset_size: rows of each in a subset, without replacement; all of the smaller sample if it has fewer.
      seed: of the subsets: the same arguments give the same result.

    Returns:
      Mean and standard deviation over the subsets; 0 for the latter where the only subset is the whole of both.

    Raises:
      UserError: fewer than two rows in either, a NaN or infinity, different d.

    References:
      Binkowski et al., Demystifying MMD GANs, arXiv 1801.01401.

    Formal guarantees:
      None: a function of real images without noise.
    """
    check_features(real, fake, 2, "a kernel distance")
    size = min(subset_size, len(real), len(fake))
    if size == len(real) == len(fake):
        return _squared_mmd(fake, real), 0.0
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = fake[rng.choice(len(fake), size, replace=False)]
        y = real[rng.choice(len(real), size, replace=False)]
        values.append(_squared_mmd(x, y))
    return float(np.mean(values)), float(np.std(values))


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Of as many ``x`` as ``y``, ``[n, d]``."""
    n, d = x.shape
    # In float64: the difference of the means may be a millionth of them.
    x, y = (z.astype(np.float64) / np.sqrt(d) for z in (x, y))
    within = sum(_sum_of_cubes(z @ z.T) - np.sum((np.sum(z * z, axis=1) + 1.0) ** 3) for z in (x, y))
    return float(within / (n * (n - 1)) - 2.0 * _sum_of_cubes(x @ y.T) / n**2)


def _sum_of_cubes(products: np.ndarray) -> float:
    """Of ``products + 1``, whose memory it uses."""
    products += 1.0
    return float(np.vdot(products * products, products))
