"""The hyperparameters of ``private_diffusion``: the keys of ``config.method``."""

import dataclasses

from efsgd_jax.synthesizers.efsgd_mixture.options import TrainingOptions
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters as MixtureHyperparameters


@dataclasses.dataclass(frozen=True)
class Hyperparameters(TrainingOptions, MixtureHyperparameters):
    """The hyperparameters of the mixture, of its training by DP-SGD (both inherited), and of the diffusion.

    Attributes:
      levels: number of sizes of the denoiser's feature maps; with more than 1 it is a U-Net.
      draws: number of noisy versions of each real image in its loss.
      residual_std: assumed standard deviation of what blurred images lack, in pixels from 0 to 1.
      largest_noise: first noise level of sampling, in the same unit.
      smallest_noise: last noise level of sampling.
      sampling_steps: number of sampling steps.
      level_shift: mean of the logarithm of the noise level in training, relative to that of residual_std.
      level_std: standard deviation of the logarithm of the noise level in training.
      churn: noise that is added in each sampling step, as a part of the level; 0 for a deterministic sampler.
      label_dropout: probability to hide the class of an image in training, which guidance needs.
      guidance: factor of the difference that the class makes when sampling; 1 for no guidance.
      guidance_threshold: magnitude of guidance at the first step, above which a class counts as memorised and sampling
        turns away from it (``models.guided``); 0 for ordinary guidance.
      anchor_from: magnitude of the mixture of classes that takes its place, above which sampling begins to turn away.
      anchor_to: magnitude from which on it turns away in full.
      compute_dtype: dtype of the denoiser's computation, float32 or bfloat16; parameters are float32.
    """

    levels: int = 1
    draws: int = 1
    residual_std: float = 0.12
    largest_noise: float = 0.6
    smallest_noise: float = 0.02
    sampling_steps: int = 8
    level_shift: float = 0.0
    level_std: float = 1.0
    churn: float = 0.0
    label_dropout: float = 0.0
    guidance: float = 1.0
    guidance_threshold: float = 0.0
    anchor_from: float = 0.5
    anchor_to: float = 1.0
    compute_dtype: str = "float32"
