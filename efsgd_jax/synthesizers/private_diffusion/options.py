"""The hyperparameters of ``private_diffusion``: the keys of ``config.method``."""

import dataclasses

from efsgd_jax.synthesizers.efsgd_mixture.options import TrainingOptions
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters as MixtureHyperparameters


@dataclasses.dataclass(frozen=True)
class Hyperparameters(TrainingOptions, MixtureHyperparameters):
    """The hyperparameters of the mixture, of its training by DP-SGD (both inherited), and of the diffusion.

    Attributes:
      draws: number of noisy versions of each real image in its loss.
      residual_std: assumed standard deviation of what blurred images lack, in pixels from 0 to 1.
      largest_noise: first noise level of sampling, in the same unit.
      smallest_noise: last noise level of sampling.
      sampling_steps: number of sampling steps.
    """

    draws: int = 1
    residual_std: float = 0.12
    largest_noise: float = 0.6
    smallest_noise: float = 0.02
    sampling_steps: int = 8
