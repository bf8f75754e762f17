"""``config.method`` of ``gaussian_mixture``: what is known of the images, how the budget is spent, the reranker."""

import dataclasses

from efsgd_jax.synthesizers.gaussian_mixture.appearance import AppearanceOptions


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How to spend what the mixture may cost.

    Attributes:
      components: M, of each class.
      directions: d, at most; those below the noise threshold are left out.
      mean_clip: l2 norm of an example beyond which it is scaled down in the class sums.
      deviation_clip: the same of an example's difference from its class mean, for the basis.
      cluster_steps: of k-means; none with one component.
      mean_share: of the budget 1/sigma^2 that pays for the class means; the others alike.
      basis_share: for the basis.
      cluster_share: for the steps of k-means.
      moment_share: for the components' moments.
    """

    components: int = 5
    directions: int = 60
    mean_clip: float = 10.0
    deviation_clip: float = 6.0
    cluster_steps: int = 4
    mean_share: float = 0.15
    basis_share: float = 0.25
    cluster_share: float = 0.2
    moment_share: float = 0.5


@dataclasses.dataclass(frozen=True)
class Hyperparameters(FitOptions, AppearanceOptions):
    """Those of images as vectors, of the mixture, and of the reranker.

    Attributes:
      candidates: drawn for each image; 1 leaves the reranker out.
      reranker_share: of the budget 1/sigma^2 that pays for the reranker; the mixture has the rest.
      reranker_steps: of full-batch gradient descent.
      reranker_clip: l2 norm of an example's gradient.
      reranker_learning_rate: of the first step, in units of the clip norm.
    """

    candidates: int = 8
    reranker_share: float = 0.1
    reranker_steps: int = 60
    reranker_clip: float = 0.6
    reranker_learning_rate: float = 6.0


def budget_shares(options: Hyperparameters) -> dict[str, tuple[float, int]]:
    """The phases of a fit, in order: share of the budget 1/sigma^2, and steps."""
    o = options
    shares = {"class means": (o.mean_share, 1), "basis": (o.basis_share, 1)}
    if o.components > 1:
        shares["centres"] = (o.cluster_share, o.cluster_steps)
    shares["moments"] = (o.moment_share, 1)
    rest = 1.0 if o.candidates == 1 else 1.0 - o.reranker_share
    whole = sum(share for share, _ in shares.values())
    found = {} if o.candidates == 1 else {"reranker": (o.reranker_share, o.reranker_steps)}
    return found | {name: (rest * share / whole, steps) for name, (share, steps) in shares.items()}
