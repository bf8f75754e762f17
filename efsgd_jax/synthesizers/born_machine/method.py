"""A Born machine over the levels of the pixels in snake order, one class at a time, trained by DP-SGD.

The loss of a real image is its negative log-likelihood. Its part ``log Z`` does not depend on the image, and its
gradient would be free of cost; but whole gradients are clipped here, since the two parts cancel to a large extent: with
the other part alone clipped, the matrices lose their balance.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.privacy.dp_sgd import DpSgdMechanism
from efsgd_jax.privacy.gradient_access import GradientAccess
from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.base import Generate, Phase, Record, Released
from efsgd_jax.synthesizers.born_machine.chain import Chain, draw, first_chain, log_probability, with_unit_norms
from efsgd_jax.synthesizers.born_machine.config import Hyperparameters

# Largest number of pixels: beyond it a chain is too long to carry what distant pixels have in common.
MAX_PIXELS = 1024
# The last learning rate, relative to the first one.
LAST_RATE = 0.05


class State(NamedTuple):
    """The state of the training: step, matrices, their average, error feedback's residual, Adam's state."""

    step: jax.Array
    chain: Chain
    ema: Chain
    residual: Any
    optimizer: optax.OptState


def snake(size: int) -> np.ndarray:
    """The order of the pixels of an image of ``size`` pixels a side: rows from left to right and back, in turn."""
    rows = np.arange(size**2).reshape(size, size)
    rows[1::2] = rows[1::2, ::-1]
    return rows.ravel()


def to_levels(image: jax.Array, levels: int) -> jax.Array:
    """Levels int32 ``[D]`` of an image uint8 ``[S, S, 1]``, in snake order: a function of each pixel by itself."""
    flat = image.reshape(-1)[snake(image.shape[0])].astype(jnp.int32)
    return flat * levels // 256


def from_levels(found: jax.Array, size: int, levels: int) -> jax.Array:
    """Images ``[N, S, S, 1]`` in [-1, 1] from levels ``[N, D]``; the lowest is black and the highest white."""
    values = 2.0 * found / (levels - 1) - 1
    return jnp.zeros_like(values).at[:, snake(size)].set(values).reshape(-1, size, size, 1)


def check_shape(spec: ImageSpec) -> None:
    """Raises ``UserError`` for images in colour or of many pixels."""
    if spec.channels > 1 or spec.image_size**2 > MAX_PIXELS:
        raise UserError(
            f"config.method.name born_machine is for grey images of at most {MAX_PIXELS} pixels, and these are "
            f"{spec.image_size}x{spec.image_size}x{spec.channels}; set --config.data.channels=1 and "
            "--config.data.image_size=16, or use another method"
        )


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """One phase of DP-SGD with Adam.

    Raises:
      UserError: images in colour, or of more than 1024 pixels.

    Formal guarantees:
      A step reads real images through one ``access.clipped_gradient`` only. The levels of an image are a function of
      that image. Scaling the matrices to one norm is post-processing.
    """
    del mesh
    check_shape(spec)
    hp, (planned,) = hyperparameters, plan
    mechanism = planned.mechanism
    assert isinstance(mechanism, DpSgdMechanism)
    schedule = optax.cosine_decay_schedule(hp.learning_rate, max(planned.steps, 1), LAST_RATE)
    adam = optax.adam(schedule)

    def init(key: jax.Array, released: Released) -> State:
        chain = with_unit_norms(_first(spec, hp, key))
        copy = jax.tree.map(jnp.copy, chain)
        return State(jnp.zeros((), jnp.int32), chain, copy, mechanism.initial_residual(chain), adam.init(chain))

    def step(state: State, access: GradientAccess, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        def loss(chain: Chain, record: Record, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            value = -log_probability(chain, to_levels(record.image, hp.levels), record.label)
            return value, {"nats_per_pixel": value / spec.image_size**2}

        gradient, residual = access.clipped_gradient(
            loss, state.chain, state.residual, microbatch_size=hp.microbatch_size
        )
        updates, optimizer = adam.update(gradient, state.optimizer, state.chain)
        chain = with_unit_norms(optax.apply_updates(state.chain, updates))
        decay = jnp.minimum(hp.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(chain, state.ema, 1.0 - decay)
        return State(state.step + 1, chain, ema, residual, optimizer), {}

    return [
        Phase(
            planned,
            init,
            step,
            release=lambda state: state.ema._asdict(),
            parameters=lambda state: state.chain,
            shown=("nats_per_pixel",),
        )
    ]


def _first(spec: ImageSpec, hp: Hyperparameters, key: jax.Array) -> Chain:
    chains = spec.num_classes if hp.chains == "class" else 1
    return first_chain(key, chains, spec.num_classes, spec.image_size**2, hp.levels, hp.bond)


def _as_chain(params: Any) -> Chain:
    return Chain(**jax.tree.map(jnp.asarray, params))  # arrays of NumPy, as a file has them, take no traced index


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is published: the matrices."""
    return jax.eval_shape(lambda: _first(spec, hp, jax.random.key(0))._asdict())


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Generate:
    """Returns ``generate(params, key, labels) -> images``: see ``Method.make_generate``."""

    def generate(params: Any, key: jax.Array, labels: jax.Array) -> jax.Array:
        chain = _as_chain(params)
        found = jax.vmap(lambda k, y: draw(chain, k, y))(jax.random.split(key, len(labels)), labels)
        return from_levels(found, spec.image_size, hp.levels)

    return generate


def make_log_likelihood(spec: ImageSpec, hp: Hyperparameters) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """Returns ``f(params, images, labels)``: log-likelihoods in nats, ``[N]``, of images uint8 ``[N, S, S, 1]``."""

    def log_likelihood(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        chain = _as_chain(params)
        return jax.vmap(lambda x, y: log_probability(chain, to_levels(x, hp.levels), y))(images, labels)

    return log_likelihood
