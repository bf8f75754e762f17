"""Displacement fields of pictures: a bilinear warp, its bound in pixels, and its bound in PSNR and SSIM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.protect.likeness import psnr, ssim

# Halvings of the factor by which a flow is shortened until its picture is alike enough.
HALVINGS = 8
# A flow is shortened by so much more than to its bound, so that no rounding of its length exceeds it.
SLACK = 1e-6
# In dB, and of SSIM: another program rounds a colour between two numbers of 8 bits to the other one.
MARGIN = 0.005
# Standard deviation, in pixels, of the filter that makes a random flow smooth.
SMOOTHNESS = 2.0


class Bounds(NamedTuple):
    """What a protected view keeps.

    Attributes:
      max_shift: the longest displacement in pixels, above 0.
      min_psnr: the least PSNR in dB of a view against the original.
      min_ssim: the least SSIM.
    """

    max_shift: float = 1.0
    min_psnr: float = 26.0
    min_ssim: float = 0.9


def warp(pictures: jax.Array, flow: jax.Array) -> jax.Array:
    """Moves what pictures show: pixel p becomes the bilinear mean of the picture at ``p + flow(p)``.

    Places beyond the border have the colour of the border. Zero flow returns the very same numbers.

    Args:
      pictures: float32 ``[N, H, W, C]``.
      flow: float32 ``[N, H, W, 2]``, pixels to the right and down.

    Returns:
      ``[N, H, W, C]``; colours stay in the range of the four neighbours. Differentiable in ``flow``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.protect.flow import warp
      >>> row = jnp.arange(4.0).reshape(1, 1, 4, 1)
      >>> print(warp(row, jnp.full((1, 1, 4, 2), jnp.array([0.5, 0]))).ravel())
      [0.5 1.5 2.5 3. ]
    """
    _, height, width, _ = pictures.shape
    x = jnp.clip(jnp.arange(width) + flow[..., 0], 0.0, width - 1)
    y = jnp.clip(jnp.arange(height)[:, None] + flow[..., 1], 0.0, height - 1)
    left, top = jnp.floor(x).astype(jnp.int32), jnp.floor(y).astype(jnp.int32)
    right, bottom = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)
    u, v = (x - left)[..., None], (y - top)[..., None]
    of = jnp.arange(len(pictures))[:, None, None]
    above = (1 - u) * pictures[of, top, left] + u * pictures[of, top, right]
    below = (1 - u) * pictures[of, bottom, left] + u * pictures[of, bottom, right]
    return (1 - v) * above + v * below


def within(flow: jax.Array, max_shift: float) -> jax.Array:
    """The flow with each displacement shortened to ``max_shift`` pixels, at most.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.protect.flow import within
      >>> print(within(jnp.array([[[[3.0, 4.0], [0.3, 0.4]]]]), 1.0).round(3))
      [[[[0.6 0.8]
         [0.3 0.4]]]]
    """
    length = jnp.linalg.norm(flow, axis=-1, keepdims=True)
    longest = max_shift * (1 - SLACK)
    return jnp.where(length > longest, flow * (longest / jnp.maximum(length, SLACK)), flow)


def alike(pictures: jax.Array, flow: jax.Array, bounds: Bounds) -> jax.Array:
    """Bool ``[N]``: whether warped pictures, rounded to 8 bits, keep the bounds on PSNR and SSIM, and a ``MARGIN``."""
    warped = rounded(warp(pictures, flow))
    like = (psnr(warped, pictures) >= bounds.min_psnr + MARGIN) & (ssim(warped, pictures) >= bounds.min_ssim + MARGIN)
    return like | jnp.all(flow == 0, axis=(1, 2, 3))


def keep_alike(pictures: jax.Array, flow: jax.Array, bounds: Bounds) -> jax.Array:
    """The flow, of each picture shortened by one factor until the warped picture keeps the bounds.

    The factor is found by halving an interval, and only factors that were seen to keep the bounds are taken: zero flow
    always does.
    """

    def scaled(factor: jax.Array) -> jax.Array:
        return factor[:, None, None, None] * flow

    def halve(_: int, interval: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = interval
        middle = (low + high) / 2
        good = alike(pictures, scaled(middle), bounds)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    ones = jnp.ones(len(pictures))
    low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (0 * ones, ones))
    return scaled(jnp.where(alike(pictures, flow, bounds), ones, low))


def random_flow(shape: tuple[int, ...], max_shift: float, key: jax.Array) -> jax.Array:
    """A smooth flow ``[N, H, W, 2]`` whose displacements have all the length ``max_shift``, in random directions."""
    noise = _smooth_noise(shape, key)
    return within(noise * 1e3 / jnp.linalg.norm(noise, axis=-1, keepdims=True), max_shift)


def random_of_lengths(flow: jax.Array, key: jax.Array) -> jax.Array:
    """A random flow whose displacements have, view by view, the lengths of those of ``flow [N, H, W, 2]``.

    Directions are those of ``random_flow``. The longest displacements are where other smooth noise is largest, so that
    they lie together as those of a flow that was found do, but anywhere in the view.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from efsgd_jax.protect.flow import random_of_lengths
      >>> flow = jnp.zeros((1, 2, 2, 2)).at[0, 1, 1].set(jnp.array([0.6, 0.8]))
      >>> print(jnp.sort(jnp.linalg.norm(random_of_lengths(flow, jax.random.key(0)), axis=-1).ravel()).round(3))
      [0. 0. 0. 1.]
    """
    directions, places = jax.random.split(key)
    lengths = jnp.sort(jnp.linalg.norm(flow, axis=-1).reshape(len(flow), -1), axis=1)
    noise = _smooth_noise((*flow.shape[:3], 1), places).reshape(len(flow), -1)
    ranks = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
    placed = jnp.take_along_axis(lengths, ranks, axis=1).reshape(flow.shape[:3])
    return random_flow(flow.shape, 1.0, directions) * placed[..., None]


def _smooth_noise(shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    def smoothing(side: int) -> jax.Array:
        offset = jnp.arange(side)[:, None] - jnp.arange(side)
        return jnp.exp(-jnp.square(offset / SMOOTHNESS) / 2)

    noise = jax.random.normal(key, shape)
    return jnp.einsum("yi,xj,nijk->nyxk", smoothing(shape[1]), smoothing(shape[2]), noise)


def rounded(colours: jax.Array) -> jax.Array:
    """Colours in [0, 1] as a file of 8 bits keeps them."""
    return jnp.round(255 * colours) / 255
