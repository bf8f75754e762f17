"""The kernel distance between two sets of features, which is KID if the features are InceptionV3's."""

import numpy as np

from efsgd_jax.evaluation.metrics.features import check_features

# The numbers of subsets and of images in each, as in the published KID, and the seed of the subsets.
SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020


def kernel_distance(
    real: np.ndarray, fake: np.ndarray, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = SEED
) -> tuple[float, float]:
    """Mean and standard deviation, over random subsets, of an estimate of the squared maximum mean discrepancy.

    The kernel is ``k(x, y) = (x.y / d + 1)^3``, and the unbiased estimate of a subset is

    ``mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)``

    Its expectation does not depend on the number of images, unlike that of a Fréchet distance. The estimate can be
    negative. The defaults are torch-fidelity's. With ``fake`` as torch-fidelity's first input, the same features give
    the same number.

    Args:
      real: features of real images, ``[N, d]``, finite.
      fake: features of generated images, ``[M, d]``, finite.
      subsets: number of subsets of both that are sampled.
      subset_size: number of rows of each in a subset, sampled without replacement; at most the size of the smaller set.
      seed: seed of the subsets, so that the same arguments give the same result.

    Returns:
      Mean and standard deviation over the subsets. If a subset would be the whole of both sets, the estimate is
      computed once and the standard deviation is 0.

    Raises:
      UserError: fewer than two rows in either, a NaN or infinity, or different d.

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
    """The unbiased estimate for two sets of the same size, ``[n, d]`` each."""
    n, d = x.shape
    # In float64, because the result may be a millionth of the terms that it is the difference of.
    x, y = (z.astype(np.float64) / np.sqrt(d) for z in (x, y))
    within = sum(_sum_of_cubes(z @ z.T) - np.sum((np.sum(z * z, axis=1) + 1.0) ** 3) for z in (x, y))
    return float(within / (n * (n - 1)) - 2.0 * _sum_of_cubes(x @ y.T) / n**2)


def _sum_of_cubes(products: np.ndarray) -> float:
    """The sum of ``(products + 1)^3``; overwrites ``products`` to save memory."""
    products += 1.0
    return float(np.vdot(products * products, products))
