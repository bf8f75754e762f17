"""A warm start: a phase that trains an autoencoder on public images, or takes one that was trained before.

The autoencoder's codes can then take the place of pixels in any later phase: a private mixture of codes, rendered by
the public decoder, makes images with the textures of photographs. The phase never reads private data.

Codes are standardised by their mean and standard deviation over the public images, so that clip norms for codes of D
numbers can be chosen without private data: most codes of public images have a norm near ``sqrt(D)``.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.models.autoencoder import REDUCTION, Autoencoder
from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.base import Phase, Released
from efsgd_jax.synthesizers.config_rules import Rule, at_least

PyTree = Any
# The name of the phase.
NAME = "autoencoder"
BATCH_SIZE = 64
LEARNING_RATE, LAST_RATE = 2e-3, 0.02
# Standard deviation of the noise that is added to codes in training, so that similar codes have similar images.
CODE_NOISE = 0.2
# Weight of the mean square of codes, which keeps them small in comparison with this noise but not arbitrarily large.
CODE_WEIGHT = 1e-3
# Decay of the moving averages of the codes' moments.
MOMENTS_DECAY = 0.99


@dataclasses.dataclass(frozen=True)
class AutoencoderOptions:
    """The autoencoder that is trained on public images.

    Attributes:
      autoencoder_width: number of channels of the autoencoder's feature maps at a quarter of the image's side; 0 for no
        autoencoder. It needs ``public.path`` or ``public.weights``, and takes the place of pose and low_pass.
      autoencoder_channels: number of channels of a code, which has an eighth of the image's side.
      autoencoder_steps: number of training steps, each on 64 public images.
    """

    autoencoder_width: int = 0
    autoencoder_channels: int = 16
    autoencoder_steps: int = 4000


class State(NamedTuple):
    """The phase's state: step, parameters, Adam's state, and moving averages of the codes' first and second moments."""

    step: jax.Array
    params: PyTree
    optimizer: optax.OptState
    mean: jax.Array
    square: jax.Array


def code_size(spec: ImageSpec, options: AutoencoderOptions) -> int:
    """The number D of components of a code."""
    return (spec.image_size // REDUCTION) ** 2 * options.autoencoder_channels


def network(spec: ImageSpec, options: AutoencoderOptions) -> Autoencoder:
    """The Flax module.

    Raises:
      UserError: the images' side is not a multiple of 8.
    """
    if spec.image_size % REDUCTION:
        raise UserError(
            f"config.method.autoencoder_width needs an image size that is a multiple of {REDUCTION}, not "
            f"{spec.image_size}; set --config.data.image_size={-(-spec.image_size // REDUCTION) * REDUCTION}"
        )
    return Autoencoder(options.autoencoder_width, options.autoencoder_channels, spec.channels)


def encode(weights: PyTree, image: jax.Array, options: AutoencoderOptions) -> jax.Array:
    """The standardised code ``[D]`` of an image, uint8 ``[S, S, C]``.

    Args:
      weights: what the phase releases.
      image: the image.
      options: the options with which the autoencoder was trained.
    """
    model = Autoencoder(options.autoencoder_width, options.autoencoder_channels, image.shape[-1])
    code = model.apply({"params": weights["params"]}, in_unit_range(image)[None], method="encode")
    return (jnp.asarray(code).reshape(-1) - weights["mean"]) / weights["std"]


def decode(weights: PyTree, code: jax.Array, spec: ImageSpec, options: AutoencoderOptions) -> jax.Array:
    """The image, float32 ``[S, S, C]`` in [0, 1], of a standardised code ``[D]``."""
    side = spec.image_size // REDUCTION
    model = Autoencoder(options.autoencoder_width, options.autoencoder_channels, spec.channels)
    codes = (code * weights["std"] + weights["mean"]).reshape(1, side, side, options.autoencoder_channels)
    image = model.apply({"params": weights["params"]}, codes, method="decode")
    return jnp.clip((jnp.asarray(image)[0] + 1) / 2, 0.0, 1.0)


def in_unit_range(images: jax.Array) -> jax.Array:
    """uint8 pixels as float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def autoencoder_phase(spec: ImageSpec, options: AutoencoderOptions, plan: PlannedPhase) -> Phase:
    """The phase, whose access has public images, uint8 ``[M, S, S, C]``, or the weights of an earlier pre-training.

    It releases ``{"params": ..., "mean": [D], "std": [D]}``. The loss is the absolute error at the images' own size, at
    half and at a quarter of it.

    Raises:
      UserError: the images' side is not a multiple of 8.

    Formal guarantees:
      The phase is post-processing of public data. It has no access to private records.
    """
    model, size = network(spec, options), code_size(spec, options)
    adam = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, max(plan.steps, 1), LAST_RATE), b2=0.99)

    def init(key: jax.Array, released: Released) -> State:
        params = model.init(key, jnp.zeros((1, *spec.shape)))["params"]
        return State(jnp.zeros((), jnp.int32), params, adam.init(params), jnp.zeros(size), jnp.ones(size))

    def loss(params: PyTree, images: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        codes = jnp.asarray(model.apply({"params": params}, images, method="encode"))
        noisy = codes + CODE_NOISE * jax.random.normal(key, codes.shape)
        rebuilt = jnp.asarray(model.apply({"params": params}, noisy, method="decode"))
        error = jnp.mean(jnp.square(rebuilt - images)) / 4  # of values in [0, 1]
        return _absolute_error(rebuilt - images) + CODE_WEIGHT * jnp.mean(jnp.square(codes)), (codes, error)

    def step(state: State, access: Access, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        if isinstance(access.public, dict):  # weights, for which one step is planned
            taken = access.public
            square = jnp.square(taken["std"]) + jnp.square(taken["mean"])
            return state._replace(step=state.step + 1, params=taken["params"], mean=taken["mean"], square=square), {}
        row_key, flip_key, noise_key = jax.random.split(key, 3)
        rows = jax.random.randint(row_key, (BATCH_SIZE,), 0, len(access.public))
        images = in_unit_range(access.public[rows])
        images = jnp.where(jax.random.bernoulli(flip_key, shape=(BATCH_SIZE, 1, 1, 1)), images, images[:, :, ::-1])
        gradient, (codes, error) = jax.grad(loss, has_aux=True)(state.params, images, noise_key)
        updates, optimizer = adam.update(gradient, state.optimizer)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(MOMENTS_DECAY, state.step / (10.0 + state.step))
        flat = codes.reshape(BATCH_SIZE, size)
        mean = optax.incremental_update(jnp.mean(flat, axis=0), state.mean, 1 - decay)
        square = optax.incremental_update(jnp.mean(jnp.square(flat), axis=0), state.square, 1 - decay)
        return State(state.step + 1, params, optimizer, mean, square), {"squared error": error}

    def release(state: State) -> dict[str, PyTree]:
        variance = jnp.maximum(state.square - jnp.square(state.mean), 1e-8)
        return {"params": state.params, "mean": state.mean, "std": jnp.sqrt(variance)}

    return Phase(plan, init, step, release, parameters=lambda state: state.params, shown=("squared error",))


def released_like(spec: ImageSpec, options: AutoencoderOptions) -> PyTree:
    """Shapes and dtypes of what the phase releases."""
    phase = autoencoder_phase(spec, options, PlannedPhase(NAME, None, 1))
    return jax.eval_shape(lambda key: phase.release(phase.init(key, {})), jax.random.key(0))


def decoder_of(released: PyTree) -> PyTree:
    """The part of what the phase releases that ``decode`` needs."""
    return {**released, "params": {"decoder": released["params"]["decoder"]}}


def planned_autoencoder(config: ConfigDict) -> list[PlannedPhase]:
    """The phase as the accountant sees it; none without an autoencoder. Weights that are given take one step."""
    if not config.method.get("autoencoder_width"):  # runs of older versions lack this key
        return []
    return [PlannedPhase(NAME, None, 1 if config.public.weights else config.method.autoencoder_steps)]


def autoencoder_rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the autoencoder's keys must satisfy."""
    m = config.method
    pixels_only = {"pose_weight": 0, "low_pass": 0, "align_spot": False}
    return [
        *at_least(config, "method", ["autoencoder_width"], 0),
        *at_least(config, "method", ["autoencoder_channels", "autoencoder_steps"], 1),
        *(
            (f"method.{k}", m[k], m[k] == off or not m.autoencoder_width, f"{off} with autoencoder_width")
            for k, off in pixels_only.items()
        ),
    ]


def _absolute_error(difference: jax.Array) -> jax.Array:
    """The sum of mean absolute differences at the images' own size, at half and at a quarter of it."""
    total = jnp.mean(jnp.abs(difference))
    for _ in range(2):
        b, s, _, c = difference.shape
        difference = jnp.mean(difference.reshape(b, s // 2, 2, s // 2, 2, c), axis=(2, 4))
        total += jnp.mean(jnp.abs(difference))
    return total
