"""The clipped sum of per-example gradients, and the clipping excess: the norm by which clipping shortens each one."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.privacy.checks import check_clip_norm, check_gradients, check_rows
from efsgd_jax.privacy.rounding import margin, round_once, sum_in_blocks, sum_of_squares, wide
from efsgd_jax.privacy.varying import check_not_summed

PyTree = Any
ClipNorm = jax.typing.ArrayLike | Mapping[str, float]

# With a carried norm, a gradient of at most this norm is not scaled up: it contributes nothing. The squares of float32
# coordinates under 1e-19 underflow, so that the computed norm of so small a gradient can be wrong by any factor, and
# the norm of the scaled gradient could exceed C.
NO_DIRECTION = 1e-12
# Below this clip norm everything is clipped to zero: norms of such small float32 numbers cannot be computed reliably.
SMALLEST_CLIP_NORM = 1e-9


class ClippedSum(NamedTuple):
    """A clipped sum of per-example gradients and what is guaranteed about it.

    Attributes:
      clipped_sum: pytree like the parameters, ``sum_i clip(g_i, C)``, at least float32.
      outer_sum: the same with ``outer_l2_norm_clip`` in the place of C, or None. Error feedback computes what clipping
        removed as the difference of the two sums.
      clipping_excess: with ``carried``, float32 ``[B]``: the norm of each gradient, plus its carried norm, minus the
        norm of its contribution to ``clipped_sum``; 0 where masked out or not finite. With groups, such an array for
        each group. None without ``carried``.
      l2_norms: float32 ``[B]``, the norm of each gradient before clipping; 0 where masked out or not finite.
      clipped: bool ``[B]``, True where the norm before clipping is above C (less the margin for rounding), False where
        masked out or not finite. With groups, such an array for each group, from the norms of that group.
      losses: float32 ``[B]``, 0 where masked out.
      aux: the auxiliary output of the loss, each leaf with a leading ``[B]`` axis; 0 where masked out.
      finite: bool ``[B]``, False where a gradient had a NaN or an infinite norm (its contribution is 0); True where
        masked out.
      sensitivity: the largest L2 norm one example can add to ``clipped_sum``: the joint clip norm that the sum was
        clipped to. The transform that adds the noise checks that it is the transform's own clip norm.
      outer_l2_norm_clip: the clip norm of ``outer_sum``, or None.
      masked: ``()`` if ``clipped_grad`` was given a mask, None if not; both are pytrees without a leaf.
    """

    clipped_sum: PyTree
    outer_sum: PyTree | None
    clipping_excess: PyTree | None
    l2_norms: jax.Array
    clipped: PyTree
    losses: jax.Array
    aux: PyTree
    finite: jax.Array
    sensitivity: jax.Array
    outer_l2_norm_clip: jax.Array | None
    masked: tuple[()] | None = None


class PerExample(NamedTuple):
    """The losses of a batch, and its per-example gradients as clipping needs them; they need not be formed one by one.

    Attributes:
      losses: ``[B]``, the losses.
      aux: the auxiliary output of the loss, each leaf with a leading ``[B]`` axis.
      squared_norms: pytree like the parameters; each leaf is float32 ``[B]``, the squared norms of the gradients of
        all examples with respect to that parameter.
      sum_with: function ``f(weights, keep)`` that returns ``sum_i keep_i * weights_i * g_i``, a pytree like the
        parameters, at least float32. ``weights`` is float32 ``[B]`` for each parameter; ``keep`` is bool ``[B]``.
        Gradients of rows that are not kept may be NaN.
    """

    losses: jax.Array
    aux: PyTree
    squared_norms: PyTree
    sum_with: Callable[[PyTree, jax.Array], PyTree]


def sensitivity_of(l2_norm_clip: ClipNorm) -> Any:
    """L2 sensitivity of a clipped sum: ``C`` for one clip norm, ``sqrt(sum_m C_m^2)`` for one norm per group.

    Examples:
      >>> float(sensitivity_of({"encoder": 3.0, "decoder": 4.0}))
      5.0
    """
    clips = list(l2_norm_clip.values()) if isinstance(l2_norm_clip, Mapping) else [l2_norm_clip]
    if any(isinstance(c, jax.Array) for c in clips):
        return jnp.sqrt(sum(jnp.square(jnp.asarray(c, jnp.float32)) for c in clips))
    return np.float32(math.hypot(*clips))  # not a traced array, so that it can be checked while the program is traced


def clip_and_sum(
    per_example_grads: PyTree,
    l2_norm_clip: ClipNorm,
    *,
    mask: jax.Array | None = None,
    outer_l2_norm_clip: jax.typing.ArrayLike | None = None,
    carried: PyTree | None = None,
) -> ClippedSum:
    """``sum_i mask_i * g_i * min(1, C / ||g_i||)`` of gradients that have a leading example axis.

    Args:
      per_example_grads: pytree; every leaf ``[B, ...]`` with the same ``B``.
      l2_norm_clip: ``C`` for the joint norm over all leaves (0 clips to zero); or a mapping from each top-level key of
        ``per_example_grads`` to that group's ``C_m``, for a joint sensitivity of ``sqrt(sum_m C_m^2)``.
      mask: bool ``[B]``; False rows (padding) contribute nothing. None keeps all.
      outer_l2_norm_clip: also return the sum clipped to this joint norm, ``inf`` for the raw sum. With groups, each
        has the same multiple of its ``C_m``.
      carried: float32 ``[B]``, or such an array for each group: norms >= 0 that are added to those of the gradients
        before clipping, so that row i contributes ``g_i / ||g_i|| * min(C, ||g_i|| + carried_i)``. What remains of
        ``||g_i|| + carried_i`` is ``clipping_excess``. With ``carried``, a gradient whose norm is at most
        ``NO_DIRECTION`` contributes nothing.

    Returns:
      A ``ClippedSum``; its losses are zeros and its aux is None.

    Raises:
      ValueError: the leaves do not share one leading axis or are not floating-point, a mask or ``carried`` of another
        shape or dtype, a clip norm that is negative or NaN, a mapping whose keys are not the groups', or gradients
        that ``jax.shard_map`` has already summed over devices.

    Formal guarantees:
      Replacing one row by zeros (or flipping its mask) changes ``clipped_sum`` by at most ``sensitivity`` in L2 norm.
      This holds in float32, rounding included (rows are clipped to a norm that is smaller by ``rounding.margin``), and
      whatever the gradients and ``carried`` are: a gradient that is not finite, in any leaf, contributes exactly zero
      to both sums. ``outer_sum`` has the same bound with ``outer_l2_norm_clip``. The per-example fields have no such
      bound; they are private.

    Examples:
      >>> gradients = {"w": jnp.array([[3.0, 4.0], [0.3, 0.4]])}
      >>> jnp.round(10 * clip_and_sum(gradients, 1.0).clipped_sum["w"])
      Array([ 9., 12.], dtype=float32)
    """
    batch = check_gradients(per_example_grads)
    check_not_summed(per_example_grads)
    per_example_grads = round_once(jax.tree.map(jnp.asarray, per_example_grads))
    gradients = PerExample(
        jnp.zeros(batch),
        None,
        jax.tree.map(squared_norm, per_example_grads),
        lambda weights, keep: jax.tree.map(lambda w, g: masked_sum(w, keep, g), weights, per_example_grads),
    )
    one = jax.tree.map(lambda g: jax.ShapeDtypeStruct(g.shape[1:], g.dtype), per_example_grads)
    slack = margin(one, batch)
    return clip_gradients(
        gradients, l2_norm_clip, slack, mask=mask, outer_l2_norm_clip=outer_l2_norm_clip, carried=carried
    )


def clip_gradients(
    gradients: PerExample,
    l2_norm_clip: ClipNorm,
    slack: float,
    *,
    mask: jax.Array | None = None,
    outer_l2_norm_clip: jax.typing.ArrayLike | None = None,
    carried: PyTree | None = None,
) -> ClippedSum:
    """``clip_and_sum`` of gradients that are given by their norms and their weighted sums.

    Args:
      gradients: the gradients of a batch, or of a microbatch of it.
      l2_norm_clip: see ``clip_and_sum``.
      slack: ``rounding.margin`` for the sum over the whole batch; gradients are clipped to ``C / (1 + slack)``.
      mask: see ``clip_and_sum``.
      outer_l2_norm_clip: see ``clip_and_sum``.
      carried: see ``clip_and_sum``.

    Formal guarantees:
      Those of ``clip_and_sum``, if ``gradients.squared_norms`` are the squared norms of the gradients that
      ``gradients.sum_with`` adds up.
    """
    (batch,) = gradients.losses.shape
    check_clip_norm(l2_norm_clip, outer_l2_norm_clip)
    check_rows(batch, mask, carried)
    mask = jnp.ones(batch, bool) if mask is None else jnp.asarray(mask, bool)
    squares = gradients.squared_norms
    if isinstance(l2_norm_clip, Mapping) and set(l2_norm_clip) != set(squares):
        raise ValueError(
            f"l2_norm_clip names the groups {sorted(l2_norm_clip)}; the gradients have {sorted(squares)}. "
            "The groups are the top-level keys of the parameters; with Flax, pass variables['params']."
        )

    def of_groups(f: Any, *trees: Any) -> Any:
        """``f(*trees)``, or, if every group has its own clip norm, ``f`` of each group's part of the trees."""
        if isinstance(l2_norm_clip, Mapping):
            return {k: f(*(t[k] for t in trees)) for k in l2_norm_clip}
        return f(*trees)

    group_norms = of_groups(lambda tree: jnp.sqrt(sum(jax.tree.leaves(tree), jnp.zeros(batch))), squares)
    norms = jnp.sqrt(sum(jnp.square(n) for n in jax.tree.leaves(group_norms)))
    finite = jnp.isfinite(norms)
    keep = mask & finite

    def sum_with(factors: Any) -> PyTree:
        def for_leaves(factor: jax.Array, tree: PyTree) -> PyTree:
            weights = jnp.where(keep, factor, 0.0)
            return jax.tree.map(lambda _: weights, tree)

        return gradients.sum_with(of_groups(for_leaves, factors, squares), keep)

    clipping_excess, sensitivity, outer_sum = None, sensitivity_of(l2_norm_clip), None
    shorter = of_groups(lambda c: c / (1 + slack), l2_norm_clip)
    if carried is None:
        factors = of_groups(_shorten, group_norms, shorter)
    else:
        contributed = of_groups(_contributed, group_norms, carried, shorter)
        factors = of_groups(lambda length, n: length / jnp.maximum(n, NO_DIRECTION), contributed, group_norms)
        clipping_excess = of_groups(
            lambda n, r, length: jnp.where(keep, jnp.maximum(n + r - length, 0.0), 0.0),
            group_norms,
            carried,
            contributed,
        )
    if outer_l2_norm_clip is not None:
        ratio = outer_l2_norm_clip / sensitivity
        outer_sum = sum_with(of_groups(lambda n, c: _shorten(n, c * ratio), group_norms, shorter))

    def where_masked(x: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape((-1,) + (1,) * (x.ndim - 1)), x, jnp.zeros_like(x))

    return ClippedSum(
        clipped_sum=sum_with(factors),
        outer_sum=outer_sum,
        clipping_excess=clipping_excess,
        l2_norms=jnp.where(keep, norms, 0.0),
        clipped=of_groups(lambda n, c: keep & (n > c), group_norms, shorter),
        losses=where_masked(gradients.losses),
        aux=jax.tree.map(where_masked, gradients.aux),
        finite=finite | ~mask,
        sensitivity=sensitivity,
        outer_l2_norm_clip=None if outer_l2_norm_clip is None else as_number(outer_l2_norm_clip),
    )


def clip_by_norm(tree: PyTree, l2_norm: jax.typing.ArrayLike) -> PyTree:
    """``tree * min(1, l2_norm / ||tree||)`` in float32 or wider; zero if the tree's norm is not finite.

    Formal guarantees:
      The norm of the result is at most ``l2_norm``, including the rounding of the norm and of the product.

    Examples:
      >>> jnp.round(10 * clip_by_norm({"w": jnp.array([3.0, 4.0])}, 1.0)["w"])
      Array([6., 8.], dtype=float32)
    """
    tree = jax.tree.map(lambda x: wide(jnp.asarray(x)), tree)
    squares = [sum_of_squares(x.reshape(-1)) for x in jax.tree.leaves(tree)]
    norm = jnp.sqrt(sum(squares, jnp.zeros(())))
    factor = _shorten(norm, l2_norm / (1 + margin(tree, 1)))
    return jax.tree.map(lambda x: jnp.where(jnp.isfinite(norm), factor * x, 0.0), tree)


def squared_norm(gradients: jax.Array) -> jax.Array:
    """The squared norms ``[B]``, at least float32, of the rows of an array ``[B, ...]``."""
    return sum_of_squares(gradients.reshape(gradients.shape[0], math.prod(gradients.shape[1:])))


def as_number(x: Any) -> Any:
    return x if isinstance(x, jax.Array) else np.float32(x)


def _shorten(norms: jax.Array, l2_norm_clip: Any) -> jax.Array:
    """The factors ``min(1, C / norm)``, without 0 / 0.

    All factors are 1 if C is infinite (no clipping), and 0 if C is below ``SMALLEST_CLIP_NORM``.
    """
    factor = l2_norm_clip / jnp.maximum(jnp.maximum(norms, l2_norm_clip), SMALLEST_CLIP_NORM)
    return jnp.where(jnp.isinf(l2_norm_clip), 1.0, jnp.where(l2_norm_clip < SMALLEST_CLIP_NORM, 0.0, factor))


def _contributed(norms: jax.Array, carried: jax.Array, l2_norm_clip: jax.typing.ArrayLike) -> jax.Array:
    """The norm of each contribution: that of the gradient plus the carried one, at most C.

    It is 0 for a gradient whose norm is at most ``NO_DIRECTION``.
    """
    return jnp.where(norms > NO_DIRECTION, jnp.minimum(norms + carried, l2_norm_clip), 0.0)


def masked_sum(weights: jax.Array, keep: jax.Array, leaf: jax.Array) -> jax.Array:
    """``sum_i weights_i * leaf_i`` over the rows i with ``keep_i``."""

    def some(block: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        weights, keep, leaf = block
        # The select comes before the product: 0 * NaN is NaN, so that one such example would make the whole sum NaN.
        kept = jnp.where(keep.reshape((-1,) + (1,) * (leaf.ndim - 1)), leaf, 0)
        # Accelerators round float32 factors by default, and the norm of a rounded term can exceed its bound.
        return jnp.tensordot(weights, wide(kept), axes=1, precision=jax.lax.Precision.HIGHEST)

    return sum_in_blocks(some, (weights, keep, leaf))
