"""What generated images are made from, and which real images of the judge's shard they are to resemble."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.critic import sample_latent
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.shard import Images, Member, Shard, pixels_of


class Inputs(NamedTuple):
    """For the n images of one judge: latents ``z [n, latent]``, ``labels [n]``; with reconstruction, real images
    ``targets [n, S, S, C]`` and where there is one, ``has_target [n]``; without, ``()``.

    Formal guarantees:
      ``targets`` and ``has_target`` are the judge's, and reach the generator through its sanitised gradient only.
      ``z`` and ``labels`` enter the generator itself: with ``reconstruction_from="codes"`` they are functions of real
      images, otherwise of keys.
    """

    z: jax.Array
    labels: jax.Array
    targets: Any
    has_target: Any


class Drawing(NamedTuple):
    """``draw(index, member, real, nonempty, key) -> Inputs`` of the judge with this index in the step, from
    ``examples`` records of its shard."""

    draw: Callable[..., Inputs]
    examples: int


def make_inputs(spec: ImageSpec, hp: Hyperparameters, shard: Shard, each: int, *, fixed_labels: bool) -> Drawing:
    """Binds the drawing of inputs to n = ``each`` images a judge."""

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
        """Half of a judge's images are made from codes of its own."""
        prior_key, code_key = jax.random.split(key)
        z, labels = from_prior(index, prior_key)
        found: Images = pixels_of(real)
        rebuilt = (jnp.arange(each) >= each - each // 2) & nonempty
        z = jnp.where(rebuilt[:, None], shard.encode(member, found.pixels, code_key), z)
        return Inputs(z, jnp.where(rebuilt, found.labels, labels), found.pixels, rebuilt)

    def nearest(index: jax.Array, member: Member, real: Any, nonempty: jax.Array, key: jax.Array) -> Inputs:
        """The image of that label, of those that the judge looks at, whose code is nearest to z."""
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
