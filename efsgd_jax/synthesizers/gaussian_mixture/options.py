"""The hyperparameters of ``gaussian_mixture`` (``config.method``) and the shares of the budget that they set."""

import dataclasses
import math

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.synthesizers.gaussian_mixture.appearance import AppearanceOptions
from efsgd_jax.synthesizers.public_autoencoder import code_size
from efsgd_jax.synthesizers.reranking import RerankerOptions, follows_mixture, steps_of


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """The size of the mixture, its clip norms, and how its phases divide the budget 1/sigma^2.

    The four ``*_share`` keys are relative: the mixture's part of the budget is divided in proportion to them.

    Attributes:
      components: number M of Gaussian components of each class.
      directions: largest number d of principal directions; directions below the noise threshold are left out.
      mean_clip: clip norm of an image's vector in the sums for the class means. The vector has the pixels from 0 to 1,
        or with ``low_pass`` their low frequencies; with ``pose_weight`` the pose is appended. 0 for one that suits the
        size of images or codes.
      deviation_clip: clip norm of the difference between such a vector and its class mean, for the basis. 0 for
        one that suits mean_clip.
      cluster_steps: number of k-means steps; none are taken with one component.
      mean_share: relative share of the mixture's part of the budget 1/sigma^2 that is spent on the class means.
      basis_share: relative share of the mixture's part of the budget that is spent on the basis.
      cluster_share: relative share of the mixture's part of the budget that is spent on all k-means steps together.
      moment_share: relative share of the mixture's part of the budget that is spent on the components' moments.
    """

    components: int = 5
    directions: int = 60
    mean_clip: float = 0.0
    deviation_clip: float = 0.0
    cluster_steps: int = 4
    mean_share: float = 0.15
    basis_share: float = 0.25
    cluster_share: float = 0.2
    moment_share: float = 0.5


@dataclasses.dataclass(frozen=True)
class Hyperparameters(RerankerOptions, FitOptions, AppearanceOptions):
    """All hyperparameters: those of the representation of images, of the mixture, and of the reranker."""


def clip_norms(spec: ImageSpec, options: Hyperparameters) -> tuple[float, float]:
    """The clip norms of vectors and of their deviations: ``mean_clip`` and ``deviation_clip``, or what suits the size.

    36% of the norm of a white image, or 75% of the usual norm of a code; and 60% of this, or for codes all of it.

    Formal guarantees:
      They depend on the size and number of channels of the images, which are public, and on no image.

    Examples:
      >>> clip_norms(ImageSpec(28, 1, 10), Hyperparameters())
      (10.0, 6.0)
    """
    coded = options.autoencoder_width > 0
    white = math.sqrt(code_size(spec, options)) if coded else spec.image_size * math.sqrt(spec.channels)
    mean = options.mean_clip or white * (0.75 if coded else 1 / 2.8)
    return mean, options.deviation_clip or mean * (1.0 if coded else 0.6)


def budget_shares(options: Hyperparameters) -> dict[str, tuple[float, int]]:
    """Name of each phase, in order -> its share of the budget 1/sigma^2, and its number of steps. Shares sum to 1."""
    o = options
    shares = {"class means": (o.mean_share, 1), "basis": (o.basis_share, 1)}
    if o.components > 1:
        shares["centres"] = (o.cluster_share, o.cluster_steps)
    shares["moments"] = (o.moment_share, 1)
    rest = 1.0 if o.candidates == 1 else 1.0 - o.reranker_share
    whole = sum(share for share, _ in shares.values())
    mixture = {name: (rest * share / whole, steps) for name, (share, steps) in shares.items()}
    reranker = {} if o.candidates == 1 else {"reranker": (o.reranker_share, steps_of(o))}
    return mixture | reranker if follows_mixture(o) else reranker | mixture
