"""The generator's inputs for each scoring shard and, with reconstruction, the real images that outputs should resemble.

A scoring shard is one whose discriminator scores generated images in this step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.critic import sample_latent
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.shard import Images, Member, Shard, pixels_of


class Inputs(NamedTuple):
    """Inputs for the n generated images that one shard's discriminator scores.

    Attributes:
      z: latents, ``[n, latent]``.
      labels: classes, ``[n]``.
      targets: with reconstruction, real images ``[n, S, S, C]`` of the shard; without, ``()``.
      has_target: with reconstruction, ``[n]``, True where the image has a target; without, ``()``.

    Formal guarantees:
      ``targets`` and ``has_target`` are private to the shard, and reach the generator through its sanitised gradient
      only. ``z`` and ``labels`` enter the generator itself: with ``reconstruction_from="codes"`` they are functions of
      real images, otherwise of keys.
    """

    z: jax.Array
    labels: jax.Array
    targets: Any
    has_target: Any


class Drawing(NamedTuple):
    """How the inputs for a scoring shard are sampled.

    Attributes:
      draw: ``draw(index, member, real, nonempty, key) -> Inputs`` returns the inputs for scoring shard number
        ``index`` of the step; see ``GeneratorLoss.inputs``.
      examples: number of records of the shard that ``draw`` reads.
    """

    draw: Callable[..., Inputs]
    examples: int


def make_inputs(spec: ImageSpec, hp: Hyperparameters, shard: Shard, each: int, *, fixed_labels: bool) -> Drawing:
    """Returns the function that samples the inputs for a scoring shard, as ``hp`` configures the reconstruction.

    Args:
      spec: shape of the images and number of classes.
      hp: hyperparameters of the method.
      shard: functions of one shard, of which ``encode`` is used.
      each: number n of images that each scoring shard gets.
      fixed_labels: True if an image's label depends only on its position in the step; False for random labels.
    """

    def from_prior(index: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        label_key, z_key = jax.random.split(key)
        labels = jax.random.randint(label_key, (each,), 0, spec.num_classes)
        if fixed_labels:
            labels = (index * each + jnp.arange(each)) % spec.num_classes
        return sample_latent(z_key, each, hp.latent, hp.latent_prior), labels

    def plain(index: jax.Array, member: Member, real: Any, nonempty: jax.Array, key: jax.Array) -> Inputs:
        del member, real, nonempty
        return Inputs(*from_prior(index, key), (), ())

    def rebuild(index: jax.Array, member: Member, real: Any, nonempty: jax.Array, key: jax.Array) -> Inputs:
        """Half of a shard's generated images are reconstructed from codes of its own real images; the others are as in
        ``plain``. A shard without records reconstructs none."""
        prior_key, code_key = jax.random.split(key)
        z, labels = from_prior(index, prior_key)
        found: Images = pixels_of(real)
        rebuilt = (jnp.arange(each) >= each - each // 2) & nonempty
        z = jnp.where(rebuilt[:, None], shard.encode(member, found.pixels, code_key), z)
        return Inputs(z, jnp.where(rebuilt, found.labels, labels), found.pixels, rebuilt)

    def nearest(index: jax.Array, member: Member, real: Any, nonempty: jax.Array, key: jax.Array) -> Inputs:
        """All images are generated as in ``plain``. The target of each is the real image of the same label whose code
        is nearest to z, among those that the shard reads; an image whose label none of them has gets no target."""
        prior_key, code_key = jax.random.split(key)
        z, labels = from_prior(index, prior_key)
        found: Images = pixels_of(real)
        codes = shard.encode(member, found.pixels, code_key)
        distance = jnp.sum(jnp.square(z[:, None] - codes), axis=-1)
        fits = (labels[:, None] == found.labels) & nonempty
        best = jnp.argmin(jnp.where(fits, distance, jnp.inf), axis=-1)
        return Inputs(z, labels, found.pixels[best], jnp.any(fits, axis=-1))

    if hp.reconstruction_weight == 0:
        return Drawing(plain, 0)
    if hp.reconstruction_from == "codes":
        return Drawing(rebuild, each)
    return Drawing(nearest, each * hp.candidates)
