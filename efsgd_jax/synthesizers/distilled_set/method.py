"""Dataset distillation from one noisy release (after arXiv 2508.01749, "Improving Noise Efficiency").

    centre     noisy mean of the features of all images                              -> c
    signals    noisy sums of clip(features - c) and counts of each class             -> mean features m_y of each class
    matching   post-processing: images x_y1 .. x_yn of each class y that minimise sum_y |mean_i features(x_yi) - m_y|^2

The features are those of J random networks, and one release has the sums for all of them; each step of the matching
compares those of a few. The published code of the paper keeps sums without noise and adds fresh noise whenever one is
used, which its accounting does not cover; here each sum is noised once, and matching may then take any number of steps.

A published image may be a mosaic of smaller ones (``tiles``), which are enlarged when they are drawn.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import PlannedPhase, VectorSum
from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.synthesizers.base import Generate, Phase, Record, Released
from efsgd_jax.synthesizers.distilled_set.config import Hyperparameters
from efsgd_jax.synthesizers.distilled_set.networks import (
    features,
    half_size,
    longest,
    network_features,
    num_features,
)
from efsgd_jax.synthesizers.distilled_set.tiles import check_tiles, drawn_images

# Weight of a record's count in the release of the signals, relative to their clip norm.
COUNT_WEIGHT = 0.25
# The first images: dark grey of this brightness plus noise of this standard deviation.
FIRST_GREY, FIRST_NOISE = 0.2, 0.1


class Row(NamedTuple):
    """The view of a record: its features ``[D]``, and its label."""

    features: jax.Array
    label: jax.Array


class Matching(NamedTuple):
    """The state of the matching: step, pixels ``[K, n, S, S, C]``, Adam's state, targets ``[K, D]``."""

    step: jax.Array
    pixels: jax.Array
    optimizer: optax.OptState
    targets: jax.Array


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """The phases, bound to the shape of a data set.

    Formal guarantees:
      Features are a function of one record and of public weights. Each of the first two phases is one release of a sum
      of clipped vectors; matching never sees a record.
    """
    del mesh
    hp, classes = hyperparameters, spec.num_classes
    check_tiles(spec, hp.tiles_per_side)
    size = num_features(spec.shape, hp.networks, hp.width)
    at_once = hp.networks_per_step or hp.networks
    of_one = num_features(spec.shape, 1, hp.width) - num_features(spec.shape, 0, hp.width)
    clip = hp.signal_clip * longest(hp.networks)
    first, second, last = plan

    def view(record: Record, released: Released) -> Row:
        image = record.image[None].astype(jnp.float32) / 255
        return Row(features(image, hp.networks, hp.width)[0], record.label)

    def centre(state: jax.Array, access: SumAccess, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        (sums,), _ = access.release([VectorSum(lambda r: r.features, longest(hp.networks))])
        return sums[0] / access.dataset_size, {}

    def signals(state: jax.Array, access: SumAccess, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        middle = access.released["centre"]
        term = VectorSum(lambda r: r.features - middle, clip, COUNT_WEIGHT * clip)
        ((sums, counts),), std = access.release([term], group=lambda r: r.label, num_groups=classes)
        # A class with hardly any record is shrunk towards the centre: its count has noise.
        fewest = 3 * std / (COUNT_WEIGHT * clip) + 1
        return middle + sums / jnp.maximum(counts, fewest)[:, None], {}

    optimizer = optax.adam(optax.cosine_decay_schedule(hp.matching_learning_rate, last.steps, alpha=0.1), b1=0.5)

    def start(key: jax.Array, released: Released) -> Matching:
        shape = (classes, hp.images_per_class, *spec.shape)
        pixels = jnp.clip(FIRST_GREY + FIRST_NOISE * jax.random.normal(key, shape), 0.0, 1.0)
        return Matching(jnp.zeros((), jnp.int32), pixels, optimizer.init(pixels), released["signals"])

    def match(state: Matching, access: Access, key: jax.Array) -> tuple[Matching, dict[str, jax.Array]]:
        # Networks with normalisation have even numbers. Of both kinds as many are compared, or one more with it.
        chosen = [
            (kind + 2 * jax.random.permutation(jax.random.fold_in(key, kind), (hp.networks - kind + 1) // 2)[i], kind)
            for kind in (0, 1)
            for i in range((at_once - kind + 1) // 2)
        ]

        def difference(found: jax.Array, target: jax.Array) -> jax.Array:
            means = jnp.mean(found.reshape(classes, -1, found.shape[-1]), axis=1)
            return jnp.sum(jnp.square(means - target))

        def loss(pixels: jax.Array) -> jax.Array:
            images = drawn_images(pixels, hp.tiles_per_side).reshape(-1, *spec.shape)
            apart = difference(half_size(images), state.targets[:, hp.networks * of_one :]) / hp.networks
            for index, kind in chosen:
                target = jax.lax.dynamic_slice_in_dim(state.targets, index * of_one, of_one, axis=1)
                found = network_features(images, index, kind == 0, hp.networks, hp.width)
                apart += difference(found, target) / at_once
            rough = sum(jnp.mean(jnp.square(jnp.diff(pixels, axis=axis))) for axis in (2, 3))
            return apart + hp.smoothness * classes * rough

        value, gradient = jax.value_and_grad(loss)(state.pixels)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer)
        pixels = jnp.clip(optax.apply_updates(state.pixels, updates), 0.0, 1.0)
        return Matching(state.step + 1, pixels, optimizer_state, state.targets), {"difference": value}

    return [
        Phase(first, lambda key, released: jnp.zeros(size), centre, release=lambda state: state, view=view),
        Phase(second, lambda key, released: jnp.zeros((classes, size)), signals, lambda state: state, view=view),
        Phase(last, start, match, release=lambda state: {"images": state.pixels}, shown=("difference",)),
    ]


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is published: images in [0, 1]."""
    return {"images": jax.ShapeDtypeStruct((spec.num_classes, hp.images_per_class, *spec.shape), jnp.float32)}


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Generate:
    """Returns ``generate(params, key, labels) -> images``, which looks images or their tiles up.

    Those of a class are taken in turn from a random one on, so that ten of a class are ten images if the set has ten.
    """
    count = hp.images_per_class * hp.tiles_per_side**2

    def generate(params: Any, key: jax.Array, labels: jax.Array) -> jax.Array:
        which, how = jax.random.split(key)
        one_hot = jax.nn.one_hot(labels, spec.num_classes, dtype=jnp.int32)
        before = jnp.sum(jnp.cumsum(one_hot, axis=0) * one_hot, axis=1)  # images of the class up to this one
        first = jax.random.randint(which, (spec.num_classes,), 0, count)
        row = (first[labels] + before) % count
        images = drawn_images(params["images"], hp.tiles_per_side)[labels, row]
        if hp.augmentation:
            images = jax.vmap(lambda k, x: _moved(k, x, hp.augmentation))(jax.random.split(how, len(labels)), images)
        return 2 * images - 1

    return generate


def _moved(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """An image ``[S, S, C]``, turned, scaled and shifted at random: see ``Hyperparameters.augmentation``."""
    side = image.shape[0]
    turn, rows, columns, down, right = strength * jax.random.uniform(key, (5,), minval=-1.0)
    angle = turn * math.radians(15)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    y, x = (
        grid - (side - 1) / 2 for grid in jnp.meshgrid(jnp.arange(1.0 * side), jnp.arange(1.0 * side), indexing="ij")
    )
    from_y = (1 + 0.15 * rows) * (cos * y - sin * x) + (side - 1) / 2 + down * side / 12
    from_x = (1 + 0.15 * columns) * (sin * y + cos * x) + (side - 1) / 2 + right * side / 12
    return jax.vmap(
        lambda plane: jax.scipy.ndimage.map_coordinates(plane, [from_y, from_x], order=1, mode="nearest"), -1, -1
    )(image)
