"""Gradients where only a region of each image is private: the pixels under a public mask.

With m the mask, C the clip norm, b the image with its region blanked and S a Poisson sample of the records::

    b_i = where(m_i, blank, x_i)
    private = sum_{i in S} clip(grad l(x_i) - grad l(b_i), C)      clipped, and noised by the transform
    public = mean_{j in J} grad l(b_j)                             not clipped, without noise
    update = (private + noise) / B + public

The second line is ``masked_clipped_grad``, the third ``blanked_grad``. J is a batch of its own, drawn independently of
S: the public part is not noised and shows whose images are in it, so that a sum over S would show who was sampled, and
sampling would amplify nothing.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.checks import check_batch, check_leaves, checked_loss
from efsgd_jax.privacy.clipped_sum import ClipNorm, ClippedSum, sensitivity_of
from efsgd_jax.privacy.clipping import clipped_grad
from efsgd_jax.privacy.region_records import Loss, loss_of_region, mean_gradient

PyTree = Any
# What the region of the record is in the other one of two neighbouring data sets.
Neighbour = Literal["blanked", "arbitrary"]


def masked_clipped_grad(
    loss: Loss,
    region: jax.typing.ArrayLike | None,
    l2_norm_clip: ClipNorm,
    *,
    neighbour: Neighbour = "blanked",
    blank: float = 0.0,
    outer_l2_norm_clip: jax.typing.ArrayLike | None = None,
    **options: Any,
) -> Callable[..., ClippedSum]:
    """Turns a loss for one example into the clipped sum of what the private region changes in its gradients.

    Args:
      loss: ``loss(params, example, key) -> (scalar, aux)`` of one example, which is an image, or a tuple whose first
        entry is the image. Both of its values, of the whole image and of the blanked one, have the same key.
      region: bool ``[H, W]``, ``[H, W, 1]`` or of the image's own shape, True where pixels are private; None if every
        record has a mask of its own, which is then given with the batch.
      l2_norm_clip: C, see ``clip_and_sum``.
      neighbour: what the region of the differing record holds in the neighbouring data: ``"blanked"``, or
        ``"arbitrary"`` content, which doubles the sensitivity.
      blank: the value of a blank pixel, a public constant such as the middle grey, in the units of the image.
      outer_l2_norm_clip: see ``clip_and_sum``; for ``"blanked"`` only.
      options: ``method``, ``microbatch_size`` and ``mesh`` of ``clipped_grad``.

    Returns:
      ``f(params, batch, keys, mask=None, carried=None, *, regions=None) -> ClippedSum``, with the arguments of the
      result of ``clipped_grad`` and ``regions``, bool ``[B, ...]``: the masks of the records if ``region`` is None. In
      the ``ClippedSum``, ``losses`` are differences of two losses, and ``aux`` is of the whole images. A record whose
      region is blank already counts as masked out. ``sensitivity`` is C, or 2C for ``"arbitrary"``: the mechanism of
      the transform then has the clip norm 2C.

    Raises:
      UserError: a region that is not bool, has not the form of the images, protects nothing or everything, or is given
        twice or not at all; a ``blank`` that is not finite; an unknown neighbour; ``"arbitrary"`` with error feedback
        or with a mask, which batches that are sampled have.
      ValueError: as for ``clipped_grad``.

    Formal guarantees:
      Neighbours differ in the pixels of one record inside its region. Labels, pixels outside, membership and the masks
      are public: a mask computed from private content is itself a release, which is not accounted for here. There is
      no guarantee for a whole image or a person. For ``"blanked"`` the sum is a clipped sum of ``clip_and_sum`` in
      which the record is replaced by one that contributes nothing: it changes by at most C, rounding included, whatever
      the region holds, also NaN, and ``DpSgdMechanism.event`` holds. For ``"arbitrary"`` it changes by at most 2C, by
      the triangle inequality through the blanked record; ``DpSgdMechanism.event`` then holds for full batches (q = 1),
      and only those are accepted.
      With Poisson batches use ``"blanked"``, whose (epsilon, delta) is (2 epsilon, (1 + exp(epsilon)) delta) for
      arbitrary content. What is computed from the blanked images of the *sampled* rows must not be released: it shows
      who was sampled.

    Examples:
      >>> import numpy as np
      >>> loss = lambda w, image, key: (jnp.vdot(w, image), None)
      >>> region = np.array([[True, False]])
      >>> images = jnp.array([[[30.0, 5.0]], [[0.0, 7.0]]])
      >>> total = masked_clipped_grad(loss, region, 1.0)(jnp.ones((1, 2)), images, jax.random.split(jax.random.key(0)))
      >>> jnp.round(total.clipped_sum, 3)
      Array([[1., 0.]], dtype=float32)

    References:
      MaskDP, arXiv 2410.17098, for the idea of a region as the unit. Noising the loss of the region's tokens alone does
      not protect it, since other tokens see it through attention and receptive fields (docs/privacy/regions.md).
    """
    if neighbour not in get_args(Neighbour):
        raise UserError(f"neighbour is {neighbour!r}; it is one of {', '.join(get_args(Neighbour))}.")
    if neighbour == "arbitrary" and outer_l2_norm_clip is not None:
        raise UserError("neighbour='arbitrary' has no error feedback: use neighbour='blanked', or no feedback.")
    region, blank = _checked(region), _checked_blank(blank)
    difference = loss_of_region(checked_loss(loss))
    sums = clipped_grad(difference, l2_norm_clip, outer_l2_norm_clip=outer_l2_norm_clip, **options)

    def clipped(
        params: PyTree,
        batch: PyTree,
        keys: jax.Array,
        mask: jax.Array | None = None,
        carried: PyTree | None = None,
        *,
        regions: jax.typing.ArrayLike | None = None,
    ) -> ClippedSum:
        check_batch(batch, keys, mask, carried)
        if neighbour == "arbitrary" and carried is not None:
            raise UserError("neighbour='arbitrary' has no error feedback: leave carried out, or use 'blanked'.")
        if neighbour == "arbitrary" and mask is not None:
            raise UserError(
                "neighbour='arbitrary' is for full batches without a mask: no event is known for replacing a region in "
                "Poisson batches; use neighbour='blanked'."
            )
        rows = _rows(region, regions, jnp.shape(image_of(batch)))
        blanked = blank_region(batch, rows, blank)
        # Exactly nothing of a blank region: the two gradients of one and the same image may be rounded differently.
        held = differing(image_of(batch), image_of(blanked))
        total = sums(params, (batch, blanked), keys, held if mask is None else held & jnp.asarray(mask), carried)
        total = total._replace(masked=None if mask is None else ())
        return total if neighbour == "blanked" else total._replace(sensitivity=sensitivity_of(_doubled(l2_norm_clip)))

    return clipped


def blanked_grad(
    loss: Loss, region: jax.typing.ArrayLike | None, *, blank: float = 0.0
) -> Callable[..., tuple[jax.Array, PyTree]]:
    """The mean loss and gradient of images whose private region is blanked: the public part of the update.

    Args:
      loss: see ``masked_clipped_grad``.
      region: see ``masked_clipped_grad``.
      blank: see ``masked_clipped_grad``.

    Returns:
      ``f(params, batch, keys, mask=None, *, regions=None) -> (loss, gradient)``, means over the rows where ``mask`` is
      True. The batch may have any size and any public order, such as an epoch's.

    Raises:
      UserError: see ``masked_clipped_grad``.

    Formal guarantees:
      The result does not depend on the pixels inside of the regions, bit by bit, whatever they hold: it is a function
      of public data, and adding it to the noised sum is post-processing. This needs rows that are chosen independently
      of the private batches: **never the rows that ``mechanism.sample`` has drawn for ``masked_clipped_grad``**, since
      they are secret.

    Examples:
      >>> import numpy as np
      >>> loss = lambda w, image, key: (jnp.vdot(w, image), None)
      >>> public = blanked_grad(loss, np.array([[True, False]]))
      >>> images = jnp.array([[[jnp.nan, 5.0]], [[0.0, 7.0]]])
      >>> public(jnp.ones((1, 2)), images, jax.random.split(jax.random.key(0)))[1]
      Array([[0., 6.]], dtype=float32)
    """
    region, blank = _checked(region), _checked_blank(blank)
    loss = checked_loss(loss)

    def public(
        params: PyTree,
        batch: PyTree,
        keys: jax.Array,
        mask: jax.Array | None = None,
        *,
        regions: jax.typing.ArrayLike | None = None,
    ) -> tuple[jax.Array, PyTree]:
        check_batch(batch, keys, mask, None)
        params = jax.tree.map(jnp.asarray, params)
        check_leaves(params, "the parameters")
        blanked = blank_region(batch, _rows(region, regions, jnp.shape(image_of(batch))), blank)
        return mean_gradient(loss, params, blanked, keys, mask)

    return public


def blank_region(batch: PyTree, regions: jax.Array, blank: float = 0.0) -> PyTree:
    """The batch, or one example, with ``blank`` in the pixels of its images where ``regions`` is True.

    A selection and not a product, since 0 times NaN is NaN.

    Examples:
      >>> blank_region((jnp.array([jnp.nan, 2.0]), jnp.array(7)), jnp.array([True, False]))[0]
      Array([0., 2.], dtype=float32)
    """
    images = image_of(batch)
    blanked = jnp.where(regions, jnp.asarray(blank, images.dtype), images)
    if not isinstance(batch, tuple):
        return blanked
    rest = batch[1:]
    return type(batch)(blanked, *rest) if hasattr(batch, "_fields") else (blanked, *rest)


def differing(images: jax.Array, blanked: jax.Array) -> jax.Array:
    """bool ``[B]``: whether an image and its blanked version differ, so that its region holds anything; NaN differs."""
    return jnp.any(jnp.reshape(images != blanked, (len(images), -1)), axis=1)


def image_of(batch: PyTree) -> jax.Array:
    """The images of a batch, or the image of an example: itself, or its first entry if it is a tuple."""
    return jnp.asarray(batch[0] if isinstance(batch, tuple) else batch)


def box(image_size: int, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The mask bool ``[S, S, 1]`` of a rectangle of pixels, for images of S pixels a side.

    Args:
      image_size: S.
      top: first row of the rectangle, counted from 0.
      left: its first column.
      height: number of its rows.
      width: number of its columns.

    Raises:
      UserError: the rectangle is empty, is the whole image, or is not within the image.

    Examples:
      >>> int(box(28, 7, 7, 14, 14).sum())
      196
    """
    if min(top, left, height, width) < 0 or max(top + height, left + width) > image_size:
        raise UserError(
            f"the region has {height} rows from {top} and {width} columns from {left}, which is not within images of "
            f"{image_size}x{image_size} pixels."
        )
    mask = np.zeros((image_size, image_size, 1), bool)
    mask[top : top + height, left : left + width] = True
    return np.asarray(_checked(mask))


def _checked(region: Any) -> Any:
    """``region``, a mask or masks of a batch, unless it is known to protect nothing or everything, or is not bool."""
    if region is None:
        return None
    if jnp.result_type(region) != jnp.bool_:
        raise UserError(f"the region has dtype {jnp.result_type(region)}; it is bool, True where pixels are private.")
    if isinstance(region, jax.core.Tracer):
        return region
    region = np.asarray(region)
    if not region.any():
        raise UserError(
            "the region is empty, so that nothing is protected; give a mask that is True on private pixels."
        )
    if region.all():
        raise UserError(
            "the region is the whole image, so that nothing but labels is public: leave it out, or use clipped_grad; "
            "this is ordinary DP-SGD."
        )
    return region


def _checked_blank(blank: float) -> float:
    if not math.isfinite(blank):
        raise UserError(f"blank is {blank:g}; it is a finite public constant, such as 0 or the middle grey.")
    return blank


def _rows(region: Any, regions: Any, shape: tuple[int, ...]) -> jax.Array:
    """The masks of a batch of images of this shape ``[B, ...]``, as they broadcast to it."""
    if (region is None) == (regions is None):
        given = "twice, for all records and with the batch" if regions is not None else "neither"
        raise UserError(f"the region is given {given}; give one mask for all records, or regions= with each batch.")
    found = jnp.asarray(region)[None] if regions is None else jnp.asarray(_checked(regions))
    if len(shape) == 4 and found.ndim == 3:
        found = found[..., None]
    rows = 1 if regions is None else shape[0]
    channels = 1 if len(shape) == 4 and found.ndim == 4 and found.shape[-1] == 1 else shape[-1]
    if found.shape != (rows, *shape[1:-1], channels):
        raise UserError(
            f"the region has shape {found.shape[1:] if regions is None else found.shape}, and the images are {shape}; "
            "it is [H, W], [H, W, 1] or of an image's shape, with an axis B in front for a mask of each record."
        )
    return found


def _doubled(l2_norm_clip: ClipNorm) -> ClipNorm:
    if isinstance(l2_norm_clip, Mapping):
        return {k: 2 * c for k, c in l2_norm_clip.items()}
    return 2 * l2_norm_clip
