"""A small neural radiance field (NeRF, arXiv 2003.08934): a perceptron that is rendered along the rays of cameras.

Points are in the frame of a capture: the scene lies in the ball of radius 1 around the origin, and a camera at distance
``d`` sees it between ``d - 1`` and ``d + 1``. What no density hides is white.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from efsgd_jax.training.compilation import compiler_options

PyTree = Any
# Cameras see nothing nearer than this.
NEAREST = 0.05
# Density of a raw output of 0: light passes the ball's diameter almost undimmed, so that no view starts opaque.
DENSITY_SCALE, DENSITY_SHIFT = 10.0, -3.0
# Rays that are rendered at a time.
CHUNK = 2048
# Names of arguments that a compiled program has as constants.
CONSTANTS = ("options", "steps", "shape", "search", "bounds")


class Views(NamedTuple):
    """Posed views, as a NeRF learns from them.

    Attributes:
      colours: float32 ``[N, H, W, 3]`` in [0, 1].
      poses: float32 ``[N, 3, 4]``, from a camera's frame (x right, y up, looking along -z) to that of the capture.
      focal: focal length in pixels, the same for all views.
    """

    colours: jax.Array
    poses: jax.Array
    focal: jax.Array

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a view."""
        return self.colours.shape[1], self.colours.shape[2]


class Options(NamedTuple):
    """A NeRF and how it is trained.

    Attributes:
      width: units of a hidden layer.
      depth: number of hidden layers.
      frequencies: octaves of the positional encoding.
      samples: stratified samples of a ray.
      rays: rays of a step.
      steps: steps of Adam; the learning rate decays to a twentieth along a cosine.
      learning_rate: Adam's first learning rate.
      pose_learning_rate: that of the cameras, which are learned jointly (BARF, arXiv 2104.06405, but all octaves from
        the first step on: the given cameras are nearly right); 0 leaves them as they are given.
      seed: of the first weights and of the rays.
    """

    width: int = 64
    depth: int = 4
    frequencies: int = 6
    samples: int = 24
    rays: int = 512
    steps: int = 1500
    learning_rate: float = 5e-3
    pose_learning_rate: float = 0.0
    seed: int = 0


class Field(nn.Module):
    """Colours ``[..., 3]`` in [0, 1] and densities ``[...]`` at points ``[..., 3]``; one colour from all sides."""

    width: int
    depth: int
    frequencies: int

    @nn.compact
    def __call__(self, points: jax.Array) -> tuple[jax.Array, jax.Array]:
        encoded = h = encode(points, self.frequencies)
        for i in range(self.depth):
            h = nn.relu(nn.Dense(self.width)(h))
            if i == self.depth // 2 - 1:
                h = jnp.concatenate([h, encoded], axis=-1)
        raw = nn.Dense(4)(h)
        density = DENSITY_SCALE * jax.nn.softplus(raw[..., 3] + DENSITY_SHIFT)
        return jax.nn.sigmoid(raw[..., :3]), density


def encode(points: jax.Array, frequencies: int) -> jax.Array:
    """``points`` and their sines and cosines in octaves, ``[..., 3 + 6 frequencies]``; octave ``i`` is ``2^i pi / 2``.

    Octaves follow from each other by doubling of the angle, which is quicker than many sines.
    """
    sine, cosine = jnp.sin(0.5 * jnp.pi * points), jnp.cos(0.5 * jnp.pi * points)
    parts = [points]
    for _ in range(frequencies):
        parts += [sine, cosine]
        sine, cosine = 2 * sine * cosine, 1 - 2 * jnp.square(sine)
    return jnp.concatenate(parts, axis=-1)


def composite(colours: jax.Array, densities: jax.Array, lengths: jax.Array) -> jax.Array:
    """What a ray sees (NeRF, equation 3), on white.

    ``sum_i T_i (1 - exp(-sigma_i delta_i)) c_i + T``, where ``T_i`` is the light that the samples before ``i`` let
    through, and ``T`` that which all let through.

    Args:
      colours: ``[..., S, 3]`` in [0, 1], of the samples from near to far.
      densities: ``[..., S]``, at least 0.
      lengths: ``[..., S]``, the length of the ray that each sample stands for.

    Returns:
      ``[..., 3]`` in [0, 1].

    Examples:
      A sample that lets half of the light through, before an opaque one:

      >>> import jax.numpy as jnp
      >>> from efsgd_jax.protect.nerf import composite
      >>> half = composite(jnp.array([[1.0, 0, 0], [0, 0, 1]]), jnp.array([jnp.log(2), 99.0]), jnp.ones(2))
      >>> [round(float(x), 3) for x in half]
      [0.5, 0.0, 0.5]
    """
    passed = jnp.exp(-jnp.cumsum(densities * lengths, axis=-1))
    before = jnp.concatenate([jnp.ones_like(passed[..., :1]), passed[..., :-1]], axis=-1)
    return jnp.einsum("...s,...sc->...c", before - passed, colours) + passed[..., -1:]


def rays_of(poses: jax.Array, pixels: jax.Array, shape: tuple[int, int], focal: jax.Array) -> tuple[Any, Any]:
    """Origins and unit directions, both ``[R, 3]``, of the rays through the centres of pixels.

    Args:
      poses: ``[R, 3, 4]``, the camera of each ray.
      pixels: int ``[R]``, row times width plus column.
      shape: height and width of a view.
      focal: focal length in pixels.
    """
    height, width = shape
    x = (pixels % width + 0.5 - width / 2) / focal
    y = -(pixels // width + 0.5 - height / 2) / focal
    local = jnp.stack([x, y, -jnp.ones_like(x)], axis=-1)
    directions = jnp.einsum("rij,rj->ri", poses[:, :, :3], local / jnp.linalg.norm(local, axis=-1, keepdims=True))
    return poses[:, :, 3], directions


def render(
    params: PyTree,
    options: Options,
    origins: jax.Array,
    directions: jax.Array,
    key: jax.Array | None = None,
) -> jax.Array:
    """Colours ``[R, 3]`` of rays; samples lie in the middle of equal parts of a ray, or by ``key`` anywhere in them."""
    distance = jnp.linalg.norm(origins, axis=-1, keepdims=True)
    near = jnp.maximum(distance - 1, NEAREST)
    length = (distance + 1 - near) / options.samples
    shift = 0.5 if key is None else jax.random.uniform(key, (len(origins), options.samples))
    depths = near + length * (jnp.arange(options.samples) + shift)
    points = origins[:, None] + depths[..., None] * directions[:, None]
    field = Field(options.width, options.depth, options.frequencies)
    seen: Any = field.apply({"params": params}, points)
    colours, densities = seen
    return composite(colours, densities, jnp.broadcast_to(length, depths.shape))


def moved(poses: jax.Array, twists: jax.Array) -> jax.Array:
    """Cameras ``[N, 3, 4]`` turned and shifted in the capture's frame by ``twists [N, 6]``: a rotation vector, a shift.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.protect.nerf import moved
      >>> pose = jnp.eye(3, 4)[None]
      >>> quarter = moved(pose, jnp.array([[0, 0, jnp.pi / 2, 0, 0, 3.0]]))[0]
      >>> [round(float(x), 3) + 0.0 for x in quarter @ jnp.array([1.0, 0, 0, 1])]
      [0.0, 1.0, 3.0]
    """

    def turn(w: jax.Array) -> jax.Array:  # Rodrigues' formula
        angle = jnp.sqrt(jnp.sum(jnp.square(w)) + 1e-14)  # its gradient is finite at 0, too
        skew = jnp.array([[0.0, -w[2], w[1]], [w[2], 0.0, -w[0]], [-w[1], w[0], 0.0]])
        half = jnp.sinc(angle / (2 * jnp.pi))
        return jnp.eye(3) + jnp.sinc(angle / jnp.pi) * skew + jnp.square(half) / 2 * skew @ skew

    turned = jax.vmap(turn)(twists[:, :3]) @ poses[:, :, :3]
    return jnp.concatenate([turned, (poses[:, :, 3] + twists[:, 3:])[..., None]], axis=-1)


class State(NamedTuple):
    """A NeRF in training: ``params`` of the field and ``twists [N, 6]`` of the cameras, Adam's state, and the step."""

    learned: PyTree
    adam: PyTree
    step: jax.Array


def start(views: Views, options: Options) -> State:
    """A NeRF before its first step."""
    field = Field(options.width, options.depth, options.frequencies)
    params = field.init(jax.random.key(options.seed), jnp.zeros((1, 3)))["params"]
    learned = {"params": params, "twists": jnp.zeros((len(views.poses), 6))}
    return State(learned, _optimizer(options).init(learned), jnp.zeros((), jnp.int32))


def train(state: State, views: Views, options: Options, steps: int) -> tuple[State, jax.Array]:
    """Takes ``steps`` steps on random rays of ``views``; returns the new state and the losses ``[steps]``."""
    shape, colours = views.shape, views.colours.reshape(-1, 3)
    pixels = shape[0] * shape[1]

    def step(state: State, _: None) -> tuple[State, jax.Array]:
        pick, shift = jax.random.split(jax.random.fold_in(jax.random.key(options.seed + 1), state.step))
        rays = jax.random.randint(pick, (options.rays,), 0, len(colours))

        def loss(learned: PyTree) -> jax.Array:
            poses = views.poses
            if options.pose_learning_rate:
                poses = moved(poses, learned["twists"])
            origins, directions = rays_of(poses[rays // pixels], rays % pixels, shape, views.focal)
            seen = render(learned["params"], options, origins, directions, shift)
            return jnp.mean(jnp.square(seen - colours[rays]))

        value, gradient = jax.value_and_grad(loss)(state.learned)
        change, adam = _optimizer(options).update(gradient, state.adam)
        return State(optax.apply_updates(state.learned, change), adam, state.step + 1), value

    return jax.lax.scan(step, state, length=steps)


def fit(views: Views, options: Options) -> State:
    """A NeRF trained on ``views`` from its first step to its last."""
    return compiled(train)(start(views, options), views, options, options.steps)[0]


def render_views(params: PyTree, poses: jax.Array, focal: jax.Array, options: Options, shape: tuple[int, int]) -> Any:
    """What cameras ``[N, 3, 4]`` see, float32 ``[N, H, W, 3]``."""
    pixels = shape[0] * shape[1]

    def ray(i: jax.Array) -> jax.Array:
        origin, direction = rays_of(poses[i // pixels][None], i[None] % pixels, shape, focal)
        return render(params, options, origin, direction)[0]

    seen = jax.lax.map(ray, jnp.arange(len(poses) * pixels), batch_size=CHUNK)
    return seen.reshape(len(poses), *shape, 3)


@functools.cache
def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit(f)`` on the library's compiler options; arguments of these names are constants of the program."""
    static = [name for name in inspect.signature(f).parameters if name in CONSTANTS]
    return jax.jit(f, static_argnames=static, compiler_options=compiler_options())


def _optimizer(options: Options) -> optax.GradientTransformation:
    def adam(rate: float) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(rate, options.steps, 0.05), eps=1e-15)

    kinds = {"params": adam(options.learning_rate), "twists": adam(options.pose_learning_rate)}
    return optax.multi_transform(kinds, {"params": "params", "twists": "twists"})
