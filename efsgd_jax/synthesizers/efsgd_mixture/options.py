"""The hyperparameters of ``efsgd_mixture``: the keys of ``config.method``."""

import dataclasses

from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters as MixtureHyperparameters


@dataclasses.dataclass(frozen=True)
class Hyperparameters(MixtureHyperparameters):
    """The hyperparameters of the mixture, which is the latent space (inherited), and those of the decoder.

    Attributes:
      mixture_share: part of epsilon that the phases of the mixture spend; the decoder's training spends the rest.
      width: number of channels of the decoder's feature maps.
      blocks: number of the decoder's residual blocks.
      noise_injection: whether each of these blocks adds noise.
      learning_rate: Adam's learning rate in the first step; it decays to a twentieth along a cosine.
      adam_b1: decay rate of Adam's first moment.
      ema_decay: decay of the moving average of the decoder's parameters, which is what is released.
      microbatch_size: number of examples whose gradients are computed at a time; None for the whole batch.
    """

    mixture_share: float = 0.45
    width: int = 32
    blocks: int = 3
    noise_injection: bool = False
    learning_rate: float = 3e-3
    adam_b1: float = 0.9
    ema_decay: float = 0.97
    microbatch_size: int | None = 32
