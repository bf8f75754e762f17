"""DP-SGD for a network that starts from a private mixture, as a phase after the phases of the mixture."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy.dp_sgd import DpSgdMechanism
from efsgd_jax.privacy.gradient_access import GradientAccess
from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.base import Phase, Record, Released
from efsgd_jax.synthesizers.efsgd_mixture.options import TrainingOptions
from efsgd_jax.synthesizers.gaussian_mixture.appearance import AppearanceOptions, to_image, to_vector
from efsgd_jax.synthesizers.gaussian_mixture.method import published
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, code_scale
from efsgd_jax.synthesizers.public_autoencoder import NAME

PyTree = Any
# The last learning rate, relative to the first one.
LAST_RATE = 0.05


class Start(NamedTuple):
    """What a network starts from: ``images`` ``[B, S, S, C]`` in [0, 1], blurred, and their ``codes`` ``[B, d]``."""

    images: jax.Array
    codes: jax.Array


def start_from(
    mixture: Mixture,
    vectors: jax.Array,
    labels: jax.Array,
    keys: jax.Array,
    spec: ImageSpec,
    options: AppearanceOptions,
    *,
    deformation: float = 0.0,
    autoencoder: PyTree = None,
) -> Start:
    """The blurred images, with contrast 1, and the codes, of about unit variance, of vectors ``[B, D]``.

    Args:
      mixture: the released mixture.
      vectors: vectors in the format of ``appearance.to_vector``.
      labels: their classes, int ``[B]``.
      keys: PRNG keys of the deformations, ``[B]``.
      spec: shape of the images and number of classes.
      options: how images are represented.
      deformation: as in ``AppearanceOptions``, in the place of that of ``options``.
      autoencoder: that of ``to_image``.
    """
    plain = options.plain(deformation=deformation)
    images = jax.vmap(lambda k, v: to_image(k, v, spec, plain, autoencoder))(keys, vectors)
    # An index in brackets is refused by JAX on a mesh of devices, where the mixture comes from outside of the loss.
    means = jnp.take(mixture.means, labels, axis=0)
    return Start(images, (vectors - means) @ mixture.basis / code_scale(mixture))


def vector_in_basis(mixture: Mixture, vector: jax.Array, label: jax.Array) -> jax.Array:
    """``m_y + V V^T (vector - m_y)``: what the code of a vector ``[D]`` keeps of it."""
    mean = mixture.means[label]
    return mean + mixture.basis @ (mixture.basis.T @ (vector - mean))


class State(NamedTuple):
    """The training phase's state.

    Attributes:
      step: number of steps taken.
      params: parameters of the network.
      ema: their exponential moving average, which is released.
      residual: residual of error feedback; private.
      optimizer: state of Adam.
      released: what the phases of the mixture released before: ``{"mixture": ..., "reranker": ...}``. It does not
        change during training.
    """

    step: jax.Array
    params: PyTree
    ema: PyTree
    residual: PyTree
    optimizer: optax.OptState
    released: PyTree


# loss(params, mixture, vector, record, key, autoencoder) -> scalar, for the vector in the basis of the image of one
# record.
Loss = Callable[[PyTree, Mixture, jax.Array, Record, jax.Array, PyTree], jax.Array]


def training_phase(
    planned: PlannedPhase,
    hp: Any,
    init_network: Callable[[jax.Array], PyTree],
    loss: Loss,
    *,
    network: str,
    metric: str,
) -> Phase:
    """DP-SGD with Adam and a cosine schedule; it releases what the mixture's phases released, and the network.

    Args:
      planned: the phase as the accountant sees it, whose mechanism is that of DP-SGD.
      hp: ``TrainingOptions`` that are ``AppearanceOptions`` as well.
      init_network: returns the network's initial parameters for a key.
      loss: the loss of one real image.
      network: name under which the network is published.
      metric: name of the loss among the private metrics.

    Formal guarantees:
      A step reads real examples through one ``access.clipped_gradient`` only. The code of an example and its blurred
      image are functions of that example and of what earlier phases released.
    """
    options: TrainingOptions = hp
    mechanism = planned.mechanism
    assert isinstance(mechanism, DpSgdMechanism)
    schedule = optax.cosine_decay_schedule(options.learning_rate, max(planned.steps, 1), LAST_RATE)
    adam = optax.adam(schedule, b1=options.adam_b1)

    def init(key: jax.Array, released: Released) -> State:
        params = init_network(key)
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),  # a copy, so that the buffers of a state may be donated
            residual=mechanism.initial_residual(params),
            optimizer=adam.init(params),
            released=jax.tree.map(jnp.asarray, published(released)),
        )

    def step(state: State, access: GradientAccess, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        del key  # generated images have no loss of their own
        mixture, autoencoder = Mixture(**state.released["mixture"]), access.released.get(NAME)

        def of_record(params: PyTree, example: Record, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            vector = vector_in_basis(mixture, to_vector(example.image, hp, autoencoder), example.label)
            value = loss(params, mixture, vector, example, key, autoencoder)
            return value, {metric: value}

        gradient, residual = access.clipped_gradient(
            of_record, state.params, state.residual, microbatch_size=options.microbatch_size
        )
        updates, optimizer = adam.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(options.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        return State(state.step + 1, params, ema, residual, optimizer, state.released), {}

    return Phase(
        planned,
        init,
        step,
        release=lambda state: {**state.released, network: state.ema},
        parameters=lambda state: state.params,
        shown=(metric,),
    )
