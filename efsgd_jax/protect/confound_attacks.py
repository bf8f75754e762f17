"""What an owner of protected images must know: how much a stranger learns from them after each of several attacks.

Each attack trains a new CNN on the protected images, changed as an attacker would change them, and measures it on clean
test images. Beside it stands the same training on unprotected images.
"""

import functools
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from efsgd_jax.images import to_pillow
from efsgd_jax.protect.classifier import Augment, Training, train_classifier
from efsgd_jax.protect.sources import Labelled

# Weights of red, green and blue in a grey picture (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)
JPEG_QUALITY, BITS = 10, 4
# Shares of the training images that the attacker has without protection.
MIXED = (0.1, 0.25)
MEANS, UNSEEN = "mean of each class removed", "images that no generator saw"


class Row(NamedTuple):
    """One attack.

    Attributes:
      attack: what the attacker does.
      protected: accuracy on clean test images after training on protected images.
      unprotected: the same for unprotected images; for a mixture, for its unprotected part alone.
    """

    attack: str
    protected: float
    unprotected: float


def grey_scale(images: np.ndarray) -> np.ndarray:
    """Replaces all channels by the luminance: uint8 ``[N, S, S, C]``; grey images stay as they are."""
    if images.shape[3] == 1:
        return images
    grey = np.rint(images @ np.array(LUMINANCE, np.float32)).astype(np.uint8)
    return np.repeat(grey[..., None], images.shape[3], axis=3)


def jpeg(images: np.ndarray, quality: int = JPEG_QUALITY) -> np.ndarray:
    """Compresses each image and reads it again: uint8 ``[N, S, S, C]``."""
    return np.stack([_through_jpeg(image, quality) for image in images])


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    to_pillow(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.uint8).reshape(image.shape)


def fewer_bits(images: np.ndarray, bits: int = BITS) -> np.ndarray:
    """Rounds pixels to ``2 ** bits`` levels between 0 and 255.

    Examples:
      >>> import numpy as np
      >>> fewer_bits(np.array([0, 8, 9, 255], np.uint8)).tolist()
      [0, 0, 17, 255]
    """
    step = 255 / (2**bits - 1)
    return np.rint(np.rint(images / step) * step).astype(np.uint8)


def shifted(x: jax.Array, key: jax.Array, most: int) -> jax.Array:
    """Moves each image of a batch ``[B, S, S, C]`` by up to ``most`` pixels along both axes; borders are repeated."""
    around = jnp.pad(x, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    starts = jax.random.randint(key, (len(x), 2), 0, 2 * most + 1)
    return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), x.shape[1:]))(around, starts)


def without_class_means(data: Labelled) -> Labelled:
    """Takes from each image what the mean of its class has more than the mean of all classes.

    It is made against noise that is the same for all images of a class, by an attacker who knows that it is.
    """
    means = np.stack([data.images[data.labels == k].mean(0, dtype=np.float64) for k in np.unique(data.labels)])
    place = np.searchsorted(np.unique(data.labels), data.labels)
    moved = data.images - (means - means.mean(0))[place].astype(np.float32)
    return Labelled(np.clip(np.rint(moved), 0, 255).astype(np.uint8), data.labels)


def adversarial(radius: int) -> str:
    """The name of adversarial training against changes of this size: one step of the sign of the gradient."""
    return f"adversarial training, {radius} of 255 in one step"


def attack_all(
    protected: np.ndarray, clean: Labelled, test: Labelled, num_classes: int, radius: int, seed: int, training: Training
) -> Iterator[Row]:
    """Yields the row of each attack but the plain one, as it is measured.

    Args:
      protected: uint8 ``[N, S, S, C]``, the protected form of ``clean.images``.
      clean: the unprotected images, for comparison and mixtures.
      test: clean test images.
      num_classes: number K of classes.
      radius: the largest change of a pixel, in 255ths, which an attacker knows, and trains against.
      seed: of the networks and of the choice of images that are mixed.
      training: how each network is trained.
    """
    pair = (Labelled(protected, clean.labels), clean)
    size = clean.images.shape[1]

    def row(
        attack: str,
        change: Callable[[np.ndarray], np.ndarray] = lambda images: images,
        how: Training = training,
        augment: Augment | None = None,
    ) -> Row:
        tested = Labelled(change(test.images), test.labels)
        return Row(attack, *(score(Labelled(change(x), y), tested, num_classes, seed, how, augment) for x, y in pair))

    if clean.images.shape[3] > 1:
        yield row("grey-scale", grey_scale)
    yield row(f"JPEG, quality {JPEG_QUALITY}", jpeg)
    yield row(f"{BITS} bits", fewer_bits)
    most = max(1, size // 8)
    yield row(f"random shifts by up to {most} pixels", augment=functools.partial(shifted, most=most))
    yield row(adversarial(radius), how=training._replace(adversary=radius))
    yield Row(MEANS, *(score(without_class_means(data), test, num_classes, seed, training) for data in pair))
    order = np.random.default_rng(seed).permutation(len(clean.labels))
    for share in MIXED:
        known = order[: round(share * len(order))]
        mixed = protected.copy()
        mixed[known] = clean.images[known]
        yield Row(
            f"{share:.0%} unprotected images mixed in",
            score(Labelled(mixed, clean.labels), test, num_classes, seed, training),
            score(clean.rows(known), test, num_classes, seed, fewer_steps(training)),
        )


def score(
    data: Labelled, test: Labelled, num_classes: int, seed: int, training: Training, augment: Augment | None = None
) -> float:
    """Accuracy on ``test`` of a new network that is trained on ``data``."""
    found = train_classifier(data.images, data.labels, num_classes, seed, training, augment)
    return found.accuracy(test.images, test.labels)


def fewer_steps(training: Training) -> Training:
    """For a part of the images, which is learned by heart sooner."""
    return training._replace(steps=-(-training.steps // 2))
