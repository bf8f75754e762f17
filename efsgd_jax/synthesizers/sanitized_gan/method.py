"""A generator that learns from sanitised gradients of K discriminators on disjoint shards, as in three publications.

The same training step implements GS-WGAN (arXiv 2006.08265), DP-GAN-DPAC (CVPR 2023, with ``classifier_weight``) and
EFSGD (arXiv 2601.15061, with feedback, ``noise_injection`` and ``reconstruction_weight``). Let l_k be the loss by the
discriminator of shard k, and x_j = G(z_j, y_j) a generated image that the discriminator of shard k(j) scores. The
generator's update is the gradient of the first loss or, with ``schedule=parameter``, the second::

    image space      gradient of sum_j l_k(j)(sanitize(x_j)); the sanitiser clips each image's gradient, adds noise, and
                     divides by B
    parameter space  sum_m clip(gradient of shard m's mean loss over its B / M images) / M + noise

where B is the number of images and M that of scoring shards in a step, and l_k = -D_k, plus the classifier's
cross-entropy if ``classifier_weight`` is set. With reconstruction, the squared distance to images of the shard is added
(``generator_inputs.py``). The mechanism's ``turn`` decides which shards train, and the discriminators of which shards
score images; the networks of a shard are in ``shard.py``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models import Generator
from efsgd_jax.models.critic import sample_latent
from efsgd_jax.models.sizes import check_image_size
from efsgd_jax.privacy import PlannedPhase
from efsgd_jax.synthesizers.base import Phase, Record, Released
from efsgd_jax.synthesizers.sanitized_gan.access import GeneratorLoss, Private, ShardAccess
from efsgd_jax.synthesizers.sanitized_gan.generator_inputs import Inputs, make_inputs
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.shard import Images, Member, make_shard, pixels_of

PyTree = Any


class State(NamedTuple):
    """The training state; all of it is private except ``ema``.

    Attributes:
      step: number of generator steps taken, int32.
      params: the generator's parameters.
      ema: moving average of the generator's parameters, which is what is released.
      members: the networks (``Member``) of every shard, leading axis K.
      residual: the residual of error feedback; in image space with a leading axis B.
      optimizer: state of the generator's optimiser.
    """

    step: jax.Array
    params: PyTree
    ema: PyTree
    members: Private
    residual: PyTree
    optimizer: optax.OptState


def make_generator(spec: ImageSpec, hp: Hyperparameters) -> Generator:
    return Generator(spec, hp.generator_width, hp.max_width, hp.noise_injection)


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Callable[[PyTree, jax.Array, jax.Array], jax.Array]:
    """Returns ``generate(params, key, labels) -> images`` for the released generator: see ``Method.make_generate``."""
    generator = make_generator(spec, hp)

    def generate(params: PyTree, key: jax.Array, labels: jax.Array) -> jax.Array:
        z_key, noise_key = jax.random.split(key)
        z = sample_latent(z_key, labels.shape[0], hp.latent, hp.latent_prior)
        return cast(jax.Array, generator.apply(params, z, labels, rngs={"noise": noise_key}))

    return generate


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """A single phase; with ``warm_steps``, all discriminators are trained before its first step.

    Raises:
      UserError: the networks cannot have this image size.

    Formal guarantees:
      Real images reach the generator only through ``access.generator_gradient``; which shards train follows the
      mechanism's turns, and a shard's networks read its own images and the generator. Labels, latents and noise of
      generated images come from keys, except for reconstruction from codes in image space, where the generator's
      derivative at a real image's code is a function of that image (``mechanism.real_codes``).
    """
    del mesh
    (planned,) = plan
    mechanism = planned.mechanism
    assert isinstance(mechanism, ShardMechanism)
    check_image_size(spec)
    hp = hyperparameters
    generator = make_generator(spec, hp)

    def decode(params: PyTree, z: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        return cast(jax.Array, generator.apply(params, z, labels, rngs={"noise": key}))

    shard = make_shard(spec, hp, decode, hp.classifier_from + mechanism.round_length)
    adam = optax.adam(hp.generator_learning_rate, hp.adam_b1, hp.adam_b2)
    # With feedback in image space, image number j of every step has the same class, because it has the same residual.
    fixed_labels = mechanism.in_image_space and mechanism.feedback != "none"
    each = mechanism.images_per_step // mechanism.num_scoring
    inputs = make_inputs(spec, hp, shard, each, fixed_labels=fixed_labels)

    def init(key: jax.Array, released: Released) -> State:
        del released
        generator_key, noise_key, members_key = jax.random.split(key, 3)
        z, labels = jnp.zeros((1, hp.latent)), jnp.zeros(1, jnp.int32)
        params = generator.init({"params": generator_key, "noise": noise_key}, z, labels)
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            members=Private(jax.vmap(shard.init)(jax.random.split(members_key, mechanism.num_shards))),
            residual=mechanism.initial_residual(params, spec.shape),
            optimizer=adam.init(params),
        )

    def imagine(params: PyTree, labels: jax.Array, key: jax.Array) -> Images:
        z_key, noise_key = jax.random.split(key)
        z = sample_latent(z_key, labels.shape[0], hp.latent, hp.latent_prior)
        return Images(decode(params, z, labels, noise_key), labels)

    def warm_up(state: State, access: ShardAccess, key: jax.Array) -> State:
        """One training step of every shard's discriminator; the generator is not changed."""
        del key

        def one(member: Member, real: Record, key: jax.Array) -> Member:
            fake_key, key = jax.random.split(key)
            found = pixels_of(real)
            return shard.train_critic(member, found, imagine(state.params, found.labels, fake_key), key)

        return state._replace(members=access.train_all(one, state.members, hp.critic_batch_size))

    def step(state: State, access: ShardAccess, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        del key

        def train(member: Member, real: Record, key: jax.Array) -> tuple[Member, dict[str, jax.Array]]:
            label_key, fake_key, key = jax.random.split(key, 3)
            found = pixels_of(real)
            labels = jax.random.randint(label_key, (shard.unpaired,), 0, spec.num_classes)
            labels = jnp.concatenate([found.labels[: shard.paired], labels])
            fake = imagine(state.params, labels, fake_key)
            return shard.train(member, state.params, found, fake, state.step, key)

        def losses(member: Member, fakes: jax.Array, given: Inputs) -> jax.Array:
            loss = shard.generator_loss(member, fakes, given.labels, state.step)
            if hp.reconstruction_weight == 0:
                return loss
            error = jnp.sum(jnp.square(fakes - given.targets), axis=(1, 2, 3))
            return loss + jnp.where(given.has_target, hp.reconstruction_weight * error, 0.0)

        members = access.train(train, state.members, shard.examples)
        generator_loss = GeneratorLoss(inputs.draw, inputs.examples, decode, losses)
        gradient, residual = access.generator_gradient(generator_loss, members, state.params, state.residual)

        updates, optimizer = adam.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(hp.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        return State(state.step + 1, params, ema, members, residual, optimizer), {}

    return [
        Phase(
            planned,
            init,
            step,
            release=lambda state: state.ema,
            warm_up=warm_up if hp.warm_steps else None,
            warm_steps=hp.warm_steps,
            parameters=lambda state: state.params,
            shown=("reconstruction", "wasserstein", "classifier", "generator"),
        )
    ]
