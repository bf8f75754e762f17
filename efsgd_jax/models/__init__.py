"""Flax Linen modules; every one is a pure function of one example, batched only for speed."""

from efsgd_jax.models.discriminator import Discriminator, DiscriminatorOutput
from efsgd_jax.models.encoder import Encoder, Posterior
from efsgd_jax.models.generator import Generator

__all__ = ["Discriminator", "DiscriminatorOutput", "Encoder", "Generator", "Posterior"]
