"""Few labels, many images: a private classifier, a mixture of what it labels, and discriminators on shards.

After PATE-TripleGAN (arXiv 2404.12730), whose three players are the classifier C, the generator G and discriminators:

    classifier      C learns from the images whose labels are read (``classifier.py``); (x, C(x)) are further pairs
    mixture         the phases of ``gaussian_mixture`` on all pairs; G starts as the mixture's images
    discriminators  K of them, on disjoint shards, learn to tell pairs from (G(z, y), y). In each step each of them
                    scores images by itself; the gradients of G's parameters are clipped to C, summed over all shards,
                    and noised for 2 C, since one image can change the discriminator of its shard at will

The paper accounts by the central limit of Gaussian differential privacy, which may be below the truth; here all events
are Gaussian releases, which compose exactly. Its classifier also learns from the discriminators; here it does not.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import PlannedPhase
from efsgd_jax.synthesizers import gaussian_mixture
from efsgd_jax.synthesizers.base import Generate, Phase, Record, Released
from efsgd_jax.synthesizers.efsgd_mixture import method as refined
from efsgd_jax.synthesizers.efsgd_mixture.options import Hyperparameters as DecoderHyperparameters
from efsgd_jax.synthesizers.gaussian_mixture.method import published
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, draw
from efsgd_jax.synthesizers.pate_triple_gan.classifier import (
    classifier_phases,
    empty_classifier,
    label_of,
)
from efsgd_jax.synthesizers.pate_triple_gan.config import DISCRIMINATORS
from efsgd_jax.synthesizers.pate_triple_gan.options import Hyperparameters
from efsgd_jax.synthesizers.public_autoencoder import NAME
from efsgd_jax.synthesizers.sanitized_gan.access import GeneratorLoss, Private, ShardAccess
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters as ShardHyperparameters
from efsgd_jax.synthesizers.sanitized_gan.shard import Images, Member, make_shard, pixels_of

PyTree = Any


class State(NamedTuple):
    """The state of the last phase: step, G's parameters, their average, the discriminators (``Member``, axis K), error
    feedback's residual, Adam's state, and what the mixture's phases released."""

    step: jax.Array
    params: PyTree
    ema: PyTree
    members: Private
    residual: PyTree
    optimizer: optax.OptState
    released: PyTree


class Given(NamedTuple):
    """Inputs of the images that one discriminator scores: vectors of the mixture ``[n, D]`` and labels ``[n]``."""

    z: jax.Array
    labels: jax.Array


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """The phases of the classifier, of the mixture, and of the discriminators if the plan has them.

    Raises:
      UserError: images that ``gaussian_mixture`` or ``efsgd_mixture`` refuse.

    Formal guarantees:
      In all phases after those of the classifier, a record's label is a function of that record and of the released
      classifier. Real images reach the generator through ``access.generator_gradient`` only; the discriminators of all
      shards score in every step, and vectors, labels and noise of generated images come from keys and from what was
      released.
    """
    hp, named = hyperparameters, {p.name: p for p in plan}
    first = classifier_phases(spec, hp, named)
    of_mixture = [p for p in plan if p.name != DISCRIMINATORS and p.name not in {f.name for f in first}]
    mixture = gaussian_mixture.METHOD.phases(spec, hp, of_mixture, mesh)
    found = [*first, *_relabelled(mixture, hp)]
    if DISCRIMINATORS in named:
        refined.check_size(spec, "pate_triple_gan")
        found += _relabelled([_discriminators_phase(spec, hp, named[DISCRIMINATORS])], hp)
    return [*found[:-1], _with_classifier(found[-1])]


def _relabelled(phases: Sequence[Phase], hp: Hyperparameters) -> list[Phase]:
    """The phases, which read ``label_of`` each record in the place of its own label."""
    views: dict[Any, Any] = {}

    def of(view: Callable[[Record, Released], PyTree] | None) -> Callable[[Record, Released], PyTree]:
        def relabelled(record: Record, released: Released) -> PyTree:
            record = record._replace(label=label_of(record, released, hp))
            return view(record, released) if view else record

        return views.setdefault(view, relabelled)  # one function for each, since equal views are evaluated once

    reads_nothing = [p.plan.mechanism is None for p in phases]
    return [p if public else p._replace(view=of(p.view)) for p, public in zip(phases, reads_nothing, strict=True)]


def _with_classifier(phase: Phase) -> Phase:
    """The phase, changed to release the classifier beside what it releases."""

    def init(key: jax.Array, released: Released) -> Any:
        return phase.init(key, released), jax.tree.map(jnp.asarray, released["classifier"])

    def step(state: Any, access: Any, key: jax.Array) -> Any:
        new, metrics = phase.step(state[0], access, key)
        return (new, state[1]), metrics

    def release(state: Any) -> PyTree:
        return {**phase.release(state[0]), "classifier": state[1]._asdict()}

    changed = phase._replace(init=init, step=step, release=release)
    warm, parameters = phase.warm_up, phase.parameters
    if warm is not None:
        changed = changed._replace(warm_up=lambda state, access, key: (warm(state[0], access, key), state[1]))
    if parameters is not None:
        changed = changed._replace(parameters=lambda state: parameters(state[0]))
    return changed


def _discriminators_phase(spec: ImageSpec, hp: Hyperparameters, planned: PlannedPhase) -> Phase:
    mechanism = planned.mechanism
    assert isinstance(mechanism, ShardMechanism)
    decoder = _decoder(spec, hp)
    shard_hp = ShardHyperparameters(
        critic_width=hp.critic_width,
        critic_steps=hp.critic_steps,
        critic_batch_size=hp.critic_batch_size,
        critic_learning_rate=hp.critic_learning_rate,
        gradient_penalty=hp.gradient_penalty,
    )

    def no_decoder(*_: Any) -> jax.Array:
        raise AssertionError("shards without reconstruction do not decode")

    shard = make_shard(spec, shard_hp, no_decoder, 0)
    each = mechanism.images_per_step // mechanism.num_scoring
    adam = optax.adam(hp.learning_rate, b1=0.5)

    def images(params: PyTree, released: PyTree, vectors: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        """Generated images in [-1, 1]."""
        keys = jax.random.split(key, len(labels))
        mixture = Mixture(**released["mixture"])
        return 2 * decoder(params, mixture, vectors, labels, keys, hp.deformation, released.get(NAME)) - 1

    def drawn(released: PyTree, labels: jax.Array, key: jax.Array) -> jax.Array:
        mixture = Mixture(**released["mixture"])
        return jax.vmap(lambda k, y: draw(mixture, k, y))(jax.random.split(key, len(labels)), labels)

    def imagine(state: State, labels: jax.Array, key: jax.Array) -> Images:
        vector_key, image_key = jax.random.split(key)
        vectors = drawn(state.released, labels, vector_key)
        return Images(images(state.params, state.released, vectors, labels, image_key), labels)

    def init(key: jax.Array, released: Released) -> State:
        generator_key, members_key = jax.random.split(key)
        params = decoder.init(generator_key)
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            members=Private(jax.vmap(shard.init)(jax.random.split(members_key, mechanism.num_shards))),
            residual=mechanism.initial_residual(params, spec.shape),
            optimizer=adam.init(params),
            released=jax.tree.map(jnp.asarray, published(released)),
        )

    def warm_up(state: State, access: ShardAccess, key: jax.Array) -> State:
        def one(member: Member, real: Record, key: jax.Array) -> Member:
            fake_key, key = jax.random.split(key)
            found = pixels_of(real)
            return shard.train_critic(member, found, imagine(state, found.labels, fake_key), key)

        return state._replace(members=access.train_all(one, state.members, hp.critic_batch_size))

    def step(state: State, access: ShardAccess, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        def train(member: Member, real: Record, key: jax.Array) -> tuple[Member, dict[str, jax.Array]]:
            fake_key, key = jax.random.split(key)
            found = pixels_of(real)
            return shard.train(member, (), found, imagine(state, found.labels, fake_key), state.step, key)

        def inputs(index: jax.Array, member: Member, real: Any, nonempty: jax.Array, key: jax.Array) -> Given:
            label_key, vector_key = jax.random.split(key)
            labels = jax.random.randint(label_key, (each,), 0, spec.num_classes)
            return Given(drawn(state.released, labels, vector_key), labels)

        def decode(params: PyTree, z: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
            return images(params, state.released, z, labels, key)

        def losses(member: Member, fakes: jax.Array, given: Given) -> jax.Array:
            return shard.generator_loss(member, fakes, given.labels, state.step)

        members = access.train(train, state.members, shard.examples)
        loss = GeneratorLoss(inputs, 0, decode, losses)
        gradient, residual = access.generator_gradient(loss, members, state.params, state.residual)
        updates, optimizer = adam.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(hp.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        return State(state.step + 1, params, ema, members, residual, optimizer, state.released), {}

    return Phase(
        planned,
        init,
        step,
        release=lambda state: {**state.released, "decoder": state.ema},
        warm_up=warm_up if hp.warm_steps else None,
        warm_steps=hp.warm_steps,
        parameters=lambda state: state.params,
        shown=("wasserstein", "generator"),
    )


def _decoder_options(hp: Hyperparameters) -> DecoderHyperparameters:
    names = DecoderHyperparameters.__dataclass_fields__
    return DecoderHyperparameters(**{k: v for k, v in vars(hp).items() if k in names})


def _decoder(spec: ImageSpec, hp: Hyperparameters) -> refined.Decoder:
    return refined.Decoder(spec, _decoder_options(hp))


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is published: mixture, reranker, classifier and, with discriminators, the decoder."""
    classifier = jax.eval_shape(lambda: empty_classifier(spec, hp)._asdict())
    method = refined if hp.discriminator_share else gaussian_mixture.METHOD
    return {**method.released_like(spec, _decoder_options(hp)), "classifier": classifier}


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Generate:
    """Returns ``generate(params, key, labels) -> images`` for what is published: see ``Method.make_generate``."""
    method = refined if hp.discriminator_share else gaussian_mixture.METHOD
    return method.make_generate(spec, _decoder_options(hp))
