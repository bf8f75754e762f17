"""Images as vectors that are worth averaging, and back: pose, low frequencies, deformation, contrast.

To vectors: each image is brought to one pose (``pose``), and may be left with its low frequencies alone, of which there
are fewer to pay for. To images: what was drawn is put into its pose, deformed a little, since averages have lost what
differs from image to image, and given back the contrast that averages have lost.

Formal guarantees:
  Vectors are functions of one image each, of public constants and of nothing else: what is known of the sensitivity of
  a sum over vectors holds for adding or removing an image. An image of a released vector is post-processing.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.fft import dctn, idctn

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.synthesizers.gaussian_mixture.pose import POSE_SIZE, find_pose, from_frame, look_up, places, to_frame

# Standard deviation of the Gaussian that makes a deformation smooth, in sides of the image.
SMOOTHNESS = 1 / 7
# The brightness that contrast leaves as it is.
PIVOT = 0.3


@dataclasses.dataclass(frozen=True)
class AppearanceOptions:
    """What is known of the images beforehand. The defaults suit any.

    Attributes:
      pose_weight: length of a pose beside its image, where the largest position, size or slant has this; 0 leaves all
        images as they are. For one bright object on a dark ground.
      pose_slant: whether objects may be slanted, as handwriting is.
      low_pass: cosine coefficients kept along a side; 0 for all pixels.
      deformation: standard deviation, in sides of the image, by which a drawn image's pixels are displaced.
      contrast: of drawn images; 1 leaves them as they are.
    """

    pose_weight: float = 0.0
    pose_slant: bool = True
    low_pass: int = 0
    deformation: float = 0.0
    contrast: float = 1.0


def vector_size(spec: ImageSpec, options: AppearanceOptions) -> int:
    """D of an image."""
    side = options.low_pass or spec.image_size
    return side**2 * spec.channels + (POSE_SIZE if options.pose_weight else 0)


def to_vector(image: jax.Array, options: AppearanceOptions) -> jax.Array:
    """uint8 ``[S, S, C]`` to float32 ``[D]``: pixels in [0, 1] or their coefficients, then the weighted pose."""
    x, pose = image.astype(jnp.float32) / 255, jnp.zeros(0)
    if options.pose_weight:
        found = find_pose(x, options.pose_slant)
        x, pose = to_frame(x, found), options.pose_weight * found
    if options.low_pass:
        x = dctn(x, axes=(0, 1), norm="ortho")[: options.low_pass, : options.low_pass]
    return jnp.concatenate([x.reshape(-1), pose])


def to_image(key: jax.Array, vector: jax.Array, spec: ImageSpec, options: AppearanceOptions) -> jax.Array:
    """A vector ``[D]`` to an image ``[S, S, C]`` in [0, 1].

    Args:
      key: of the deformation, which is that of Simard, Steinkraus and Platt, 2003.
      vector: as ``to_vector`` has them, from anywhere.
      spec: shape of the image.
      options: those of ``to_vector``.
    """
    side = options.low_pass or spec.image_size
    x = vector[: side**2 * spec.channels].reshape(side, side, spec.channels)
    if options.low_pass:
        absent = (0, spec.image_size - side)
        x = idctn(jnp.pad(x, (absent, absent, (0, 0))), axes=(0, 1), norm="ortho")
    x = jnp.clip(x, 0.0, 1.0)
    if options.pose_weight:
        x = from_frame(x, vector[-POSE_SIZE:] / options.pose_weight)
    if options.deformation:
        across, down = places(spec.image_size)
        line = across[0]
        blur = jnp.exp(-jnp.square(line[:, None] - line) / (2 * SMOOTHNESS**2))
        # Rows of length 1, so that a displacement has the white noise's variance.
        blur = blur / jnp.linalg.norm(blur, axis=1, keepdims=True)
        noise = jax.random.normal(key, (2, *across.shape))
        shift = options.deformation * jnp.einsum("ij,kjl,ml->kim", blur, noise, blur)
        x = look_up(x, across + shift[0], down + shift[1])
    return jnp.clip(PIVOT + options.contrast * (x - PIVOT), 0.0, 1.0)
