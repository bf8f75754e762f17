"""Flax Linen modules; every one is a pure function of one example, batched only for speed."""

from efsgd_jax.models.discriminator import Discriminator, Judgement
from efsgd_jax.models.encoder import Encoder, Posterior
from efsgd_jax.models.generator import Generator

__all__ = ["Discriminator", "Encoder", "Generator", "Judgement", "Posterior"]
