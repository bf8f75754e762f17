"""Flax Linen modules. Each output depends on one example only: there are no statistics across the batch."""

from efsgd_jax.models.discriminator import Discriminator, DiscriminatorOutput
from efsgd_jax.models.encoder import Encoder, Posterior
from efsgd_jax.models.generator import Generator

__all__ = ["Discriminator", "DiscriminatorOutput", "Encoder", "Generator", "Posterior"]
