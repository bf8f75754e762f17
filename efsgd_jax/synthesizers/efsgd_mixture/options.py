"""The hyperparameters of ``efsgd_mixture``: the keys of ``config.method``."""

import dataclasses

from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters as MixtureHyperparameters


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """The network that starts from a private mixture, and its training by DP-SGD.

    Attributes:
      mixture_share: part of epsilon that the mixture spends; the network's training spends the rest.
      width: number of channels of the network's feature maps.
      blocks: number of the network's residual blocks.
      learning_rate: Adam's first learning rate; it decays to a twentieth along a cosine.
      adam_b1: decay rate of Adam's first moment.
      ema_decay: decay of the moving average of the network's parameters that is released.
      microbatch_size: number of examples whose gradients are computed together; None for the whole batch.
    """

    mixture_share: float = 0.45
    width: int = 32
    blocks: int = 3
    learning_rate: float = 3e-3
    adam_b1: float = 0.9
    ema_decay: float = 0.97
    microbatch_size: int | None = 32


@dataclasses.dataclass(frozen=True)
class Hyperparameters(TrainingOptions, MixtureHyperparameters):
    """The hyperparameters of the mixture, which is the latent space, of its training (both inherited), and:

    Attributes:
      noise_injection: whether each of the decoder's blocks adds noise.
      edge_weight: weight of squared differences of edge strengths (``edge_strengths``) in the reconstruction loss, next
        to those of pixels; 0 for none. With it, images have the edges and the texture that an average lacks.
    """

    noise_injection: bool = False
    edge_weight: float = 0.0
