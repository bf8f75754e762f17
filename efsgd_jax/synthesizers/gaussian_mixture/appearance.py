"""Converts images to vectors that can be averaged, and vectors back to images.

To vectors: each image is normalised to a common pose (``pose``), its darkest spot is brought to one place (``spot``),
or its lines to one direction (``direction``). If ``low_pass`` is set, only its low-frequency DCT coefficients are kept,
so that fewer numbers need noise. With an autoencoder that was trained on public images (``public_autoencoder``), the
vector is its code instead. To images: a sampled vector is moved into its pose, slightly deformed, and given more
contrast. Averaging removes the differences between single images, and their contrast; the deformation and the contrast
factor make up for it.

Formal guarantees:
  A vector is a function of one image, of public constants and of an autoencoder of public images, of nothing else. A
  bound on the sensitivity of a sum over vectors therefore holds for adding or removing an image. An image made from a
  released vector is post-processing.
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.scipy.fft import dctn, idctn

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.synthesizers import public_autoencoder
from efsgd_jax.synthesizers.gaussian_mixture import direction, spot
from efsgd_jax.synthesizers.gaussian_mixture.pose import POSE_SIZE, find_pose, from_frame, look_up, places, to_frame

# Standard deviation of the Gaussian filter that smooths a deformation, as a fraction of the side of the image.
SMOOTHNESS = 1 / 7
# The brightness that a change of contrast leaves as it is.
PIVOT = 0.3


@dataclasses.dataclass(frozen=True)
class AppearanceOptions(public_autoencoder.AutoencoderOptions):
    """Prior knowledge about the images. No epsilon covers how these values are chosen. The defaults assume nothing.

    Attributes:
      pose_weight: norm of the pose vector (position, size, slant) that is appended to the image vector, reached when
        one of these is at its maximum; 0 for none. For images of one bright object on a dark background.
      pose_slant: whether the pose includes a slant, as for handwriting.
      align_spot: whether images are turned and bent to have their darkest spot at one place, as for cells on black.
      align_lines: whether images are turned and mirrored to have their lines in one direction, and generated ones at
        random: for pictures without up and down, from above or under a microscope.
      low_pass: number of low-frequency DCT coefficients that are kept along each side; 0 keeps the full image.
      deformation: standard deviation of the displacement of a generated image's pixels, as a fraction of the side of
        the image; 0 disables deformation.
      contrast: contrast factor of generated images; 1 leaves them as they are.
    """

    pose_weight: float = 0.0
    pose_slant: bool = True
    align_spot: bool = False
    align_lines: bool = False
    low_pass: int = 0
    deformation: float = 0.0
    contrast: float = 1.0

    def plain(self, *, deformation: float = 0.0) -> Self:
        """The same options with contrast 1 and another deformation, for images that a network still changes."""
        return dataclasses.replace(self, deformation=deformation, contrast=1.0)


def vector_size(spec: ImageSpec, options: AppearanceOptions) -> int:
    """The number D of components of an image's vector."""
    if options.autoencoder_width:
        return public_autoencoder.code_size(spec, options)
    side = options.low_pass or spec.image_size
    return side**2 * spec.channels + (POSE_SIZE if options.pose_weight else int(options.align_spot))


def to_vector(image: jax.Array, options: AppearanceOptions, autoencoder: Any = None) -> jax.Array:
    """Converts an image, uint8 ``[S, S, C]``, to a vector, float32 ``[D]``.

    The vector has the pixels in [0, 1], or with ``low_pass`` their DCT coefficients; with ``pose_weight`` the pose
    times this weight is appended, and with ``align_spot`` the distance of the spot from the centre, weighted by
    ``_distance_weight``. With ``options.autoencoder_width`` it is the code by ``autoencoder``, which is what
    the phase ``autoencoder`` released.
    """
    if options.align_lines:
        image = direction.aligned(image)
    if options.autoencoder_width:
        return public_autoencoder.encode(autoencoder, image, options)
    x, pose = image.astype(jnp.float32) / 255, jnp.zeros(0)
    if options.pose_weight:
        found = find_pose(x, options.pose_slant)
        x, pose = to_frame(x, found), options.pose_weight * found
    if options.align_spot:
        distance, angle = spot.find_spot(image)
        x, pose = spot.to_place(x, distance, angle), (_distance_weight(x.shape[0]) * distance)[None]
    if options.low_pass:
        x = dctn(x, axes=(0, 1), norm="ortho")[: options.low_pass, : options.low_pass]
    return jnp.concatenate([x.reshape(-1), pose])


def to_image(
    key: jax.Array, vector: jax.Array, spec: ImageSpec, options: AppearanceOptions, autoencoder: Any = None
) -> jax.Array:
    """Converts a vector ``[D]`` to an image ``[S, S, C]`` with values in [0, 1].

    Args:
      key: PRNG key of the random deformation (Simard, Steinkraus and Platt, 2003), and of the direction with
        ``align_spot`` or ``align_lines``.
      vector: a vector in the format of ``to_vector``; it need not come from an image.
      spec: shape of the image.
      options: the same options as for ``to_vector``.
      autoencoder: the same autoencoder as for ``to_vector``, of which the encoder's parameters may be missing.
    """
    if options.autoencoder_width:
        x = public_autoencoder.decode(autoencoder, vector, spec, options)
    else:
        x = _from_pixels(vector, spec, options)
    if options.pose_weight:
        x = from_frame(x, vector[-POSE_SIZE:] / options.pose_weight)
    if options.align_spot:
        distance = jnp.clip(vector[-1] / _distance_weight(spec.image_size), 0.0, spot.FARTHEST)
        angle = jax.random.uniform(jax.random.fold_in(key, 1), maxval=2 * jnp.pi)
        x = spot.from_place(x, distance, angle)
    if options.deformation:
        across, down = places(spec.image_size)
        line = across[0]
        blur = jnp.exp(-jnp.square(line[:, None] - line) / (2 * SMOOTHNESS**2))
        # Rows of norm 1, so that each displacement has the variance of the white noise.
        blur = blur / jnp.linalg.norm(blur, axis=1, keepdims=True)
        noise = jax.random.normal(key, (2, *across.shape))
        shift = options.deformation * jnp.einsum("ij,kjl,ml->kim", blur, noise, blur)
        x = look_up(x, across + shift[0], down + shift[1])
    if options.align_lines:
        x = direction.turned(jax.random.fold_in(key, 2), x)
    return more_contrast(x, options)


def _distance_weight(side: int) -> float:
    """Weight of the spot's distance beside the pixels, which grows with their norm."""
    return spot.DISTANCE_WEIGHT * side / spot.FARTHEST


def _from_pixels(vector: jax.Array, spec: ImageSpec, options: AppearanceOptions) -> jax.Array:
    """The image ``[S, S, C]`` of a vector's pixels or DCT coefficients, without the pose."""
    side = options.low_pass or spec.image_size
    x = vector[: side**2 * spec.channels].reshape(side, side, spec.channels)
    if options.low_pass:
        absent = (0, spec.image_size - side)
        x = idctn(jnp.pad(x, (absent, absent, (0, 0))), axes=(0, 1), norm="ortho")
    return jnp.clip(x, 0.0, 1.0)


def more_contrast(images: jax.Array, options: AppearanceOptions) -> jax.Array:
    """Images with ``options.contrast``, clipped to [0, 1]."""
    return jnp.clip(PIVOT + options.contrast * (images - PIVOT), 0.0, 1.0)
