"""What generated images are made from, and which real images of the judge's shard they are to resemble."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.critic import sample_latent
from efsgd_jax.synthesizers.sanitized_gan.members import over_members, take
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.shard import Images, Member, Shard


class Inputs(NamedTuple):
    """For each of J judges, of its n images: latents ``z [J, n, latent]``, ``labels [J, n]``; with reconstruction, real
    images ``targets [J, n, S, S, C]`` and where there is one, ``has_target [J, n]``; without, ``()``.

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
    """``draw(members, asked, real, nonempty, key) -> Inputs`` for judges ``asked`` int ``[J]`` of all ``members``, from
    ``examples`` images of each judge's shard."""

    draw: Callable[[Member, jax.Array, Any, jax.Array, jax.Array], Inputs]
    examples: int


def make_inputs(
    spec: ImageSpec, hp: Hyperparameters, shard: Shard, judges: int, each: int, *, fixed_labels: bool
) -> Drawing:
    """Binds the drawing of inputs to J = ``judges`` judges of n = ``each`` images."""

    def from_prior(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        label_key, z_key = jax.random.split(key)
        labels = jax.random.randint(label_key, (judges, each), 0, spec.num_classes)
        if fixed_labels:
            labels = (jnp.arange(judges * each) % spec.num_classes).reshape(judges, each)
        z = sample_latent(z_key, judges * each, hp.latent, hp.latent_prior)
        return z.reshape(judges, each, hp.latent), labels

    def plain(members: Member, asked: jax.Array, real: Any, nonempty: jax.Array, key: jax.Array) -> Inputs:
        del members, asked, real, nonempty
        return Inputs(*from_prior(key), (), ())

    def codes_of(members: Member, asked: jax.Array, real: Images, key: jax.Array) -> jax.Array:
        def encode(k: jax.Array, pixels: jax.Array, key: jax.Array) -> jax.Array:
            return shard.encode(take(members, k), pixels, key)

        return over_members(encode, asked, real.pixels, jax.random.split(key, judges))

    def rebuild(members: Member, asked: jax.Array, real: Images, nonempty: jax.Array, key: jax.Array) -> Inputs:
        """Half of a judge's images are made from codes of its own."""
        prior_key, code_key = jax.random.split(key)
        z, labels = from_prior(prior_key)
        rebuilt = (jnp.arange(each) >= each - each // 2) & nonempty[:, None]
        z = jnp.where(rebuilt[..., None], codes_of(members, asked, real, code_key), z)
        return Inputs(z, jnp.where(rebuilt, real.labels, labels), real.pixels, rebuilt)

    def nearest(members: Member, asked: jax.Array, real: Images, nonempty: jax.Array, key: jax.Array) -> Inputs:
        """The image of that label, of those that the judge looks at, whose code is nearest to z."""
        prior_key, code_key = jax.random.split(key)
        z, labels = from_prior(prior_key)
        distance = jnp.sum(jnp.square(z[:, :, None] - codes_of(members, asked, real, code_key)[:, None]), axis=-1)
        fits = (labels[:, :, None] == real.labels[:, None]) & nonempty[:, None, None]
        best = jnp.argmin(jnp.where(fits, distance, jnp.inf), axis=-1)
        targets = jax.vmap(lambda pixels, rows: pixels[rows])(real.pixels, best)
        return Inputs(z, labels, targets, jnp.any(fits, axis=-1))

    if hp.reconstruction_weight == 0:
        return Drawing(plain, 0)
    if hp.reconstruction_from == "codes":
        return Drawing(rebuild, each)
    return Drawing(nearest, each * hp.candidates)
