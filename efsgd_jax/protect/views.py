"""Views that mislead a NeRF: bounded displacement fields, found against a NeRF that learns from the warped views.

After Shielding the Unseen (arXiv 2310.03125), of which the abstract was read: a bilevel problem, and spatial
deformation by projected gradient ascent. The objective here is our own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.protect import nerf
from efsgd_jax.protect.flow import Bounds, keep_alike, random_flow, warp, within

# Added to the squares of the directions in which a camera can move, relative to their mean.
RIDGE = 1e-3
# The flow starts as a random one of this length, relative to the longest, so that ascent has a direction.
FIRST = 0.3
# By how much steps get shorter until the last one.
DECAY = 0.8
# Added to what divides.
TINY = 1e-8
# The NeRF that flows are found against. Its rate decays over the steps of the search.
NETWORK = nerf.Options(width=48, depth=3, frequencies=5, samples=24, rays=256, steps=1500, learning_rate=1e-2)


class Search(NamedTuple):
    """How displacement fields are found.

    Attributes:
      warm_up: steps of the NeRF before the first of ascent.
      outer: steps of ascent.
      inner: steps of the NeRF between them.
      stride: length of the first step of ascent, relative to the longest displacement; it decays to a fifth.
      overshoot: by so many dB more than is allowed views are to be changed; the bounds then hold them back.
      beyond_cameras: whether error that moved cameras could explain does not count.
    """

    warm_up: int = 300
    outer: int = 60
    inner: int = 20
    stride: float = 0.2
    overshoot: float = 1.0
    beyond_cameras: bool = True


def protect(
    views: nerf.Views,
    options: nerf.Options,
    search: Search,
    bounds: Bounds,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> jax.Array:
    """Displacement fields, float32 ``[N, H, W, 2]``, by which NeRFs that learn from warped views show other scenes.

    See ``step``, of which there are ``outer``.

    Args:
      views: the clean views.
      options: the NeRF that flows are found against; its seed is that of the first flow, too.
      search: how they are found.
      bounds: what each view keeps, after rounding to 8 bits, and the longest displacement.
      say: is told of progress.

    Returns:
      Displacements in pixels, none longer than ``bounds.max_shift``.

    Formal guarantees:
      None. That the flows keep ``bounds`` is certain, that a NeRF shows another scene is not: ``views_attacks``
      measures how far some do. Each warped view shows nearly what its clean one shows.
    """
    key = jax.random.key(options.seed)
    flow = keep_alike(views.colours, FIRST * random_flow((*views.colours.shape[:3], 2), bounds.max_shift, key), bounds)
    state = nerf.start(views, options)
    state, _ = nerf.compiled(nerf.train)(state, warped(views, flow), options, search.warm_up)
    for i in range(search.outer):
        state, flow, error = nerf.compiled(step)(state, flow, views, i, options, search, bounds)
        if i % 10 == 9:
            say(f"step {i + 1} of {search.outer}: the NeRF is {-10 * jnp.log10(error):.1f} dB from the clean views")
    return flow


def step(
    state: nerf.State,
    flow: jax.Array,
    views: nerf.Views,
    i: jax.Array,
    options: nerf.Options,
    search: Search,
    bounds: Bounds,
) -> tuple[nerf.State, jax.Array, jax.Array]:
    """``inner`` steps of the NeRF on the warped views, and one of the flows that raises its loss on the clean ones.

    To first order, what the NeRF shows follows the colours that it learns from. Its loss on the clean views C, where it
    shows R, therefore rises most if the warped views W become ``C + s (R - C)``: what the NeRF already has wrong, and
    has made consistent between views, is amplified. ``s`` brings each view to ``aim`` dB. The step is

        flow <- keep_alike(within(flow - length sign(d/dflow |W(flow) - C - s (R - C)|^2)))

    Returns:
      The NeRF, the flows, and the mean square of ``R - C``.
    """
    state, _ = nerf.train(state, warped(views, flow), options, search.inner)
    seen = nerf.render_views(state.learned["params"], views.poses, views.focal, options, views.shape)
    error = seen - views.colours
    square = jnp.mean(jnp.square(error))
    if search.beyond_cameras:
        error = without_camera_motion(error, views)
    aim = 10 ** (-(bounds.min_psnr - search.overshoot) / 20)
    target = views.colours + aim * error / jnp.sqrt(jnp.mean(jnp.square(error), axis=(1, 2, 3), keepdims=True) + TINY)
    descent = -jax.grad(lambda f: jnp.sum(jnp.square(warp(views.colours, f) - target)))(flow)
    length = search.stride * bounds.max_shift * (1 - DECAY * i / search.outer)
    flow = within(flow + length * jnp.sign(descent), bounds.max_shift)
    return state, keep_alike(views.colours, flow, bounds), square


def warped(views: nerf.Views, flow: jax.Array) -> nerf.Views:
    return views._replace(colours=warp(views.colours, flow))


def without_camera_motion(error: jax.Array, views: nerf.Views) -> jax.Array:
    """The part of ``error [N, H, W, 3]`` that no small motion of a view's camera explains, by least squares.

    A motion moves what a pixel shows by a combination of six fields, of which those of shifts are for a scene of one
    depth: what a camera that is learned jointly with the scene can undo.
    """
    shape = views.shape
    x = (jnp.arange(shape[1]) + 0.5 - shape[1] / 2) / views.focal * jnp.ones(shape)
    y = (jnp.arange(shape[0])[:, None] + 0.5 - shape[0] / 2) / views.focal * jnp.ones(shape)
    one, zero = jnp.ones(shape), jnp.zeros(shape)
    # Shifts to the right, down and ahead, and turns around these axes.
    right = jnp.stack([one, zero, x, x * y, 1 + x * x, y])[:, :, :, None]
    down = jnp.stack([zero, one, y, 1 + y * y, x * y, -x])[:, :, :, None]
    by_row, by_column = jnp.gradient(views.colours, axis=(1, 2))
    fields = (right * by_column[:, None] + down * by_row[:, None]).reshape(len(error), 6, -1)
    gram = jnp.einsum("nip,njp->nij", fields, fields)
    gram += RIDGE / 6 * jnp.trace(gram, axis1=1, axis2=2)[:, None, None] * jnp.eye(6) + TINY * jnp.eye(6)
    weights = jnp.linalg.solve(gram, jnp.einsum("nip,np->ni", fields, error.reshape(len(error), -1))[..., None])
    return error - jnp.einsum("ni,nip->np", weights[..., 0], fields).reshape(error.shape)
