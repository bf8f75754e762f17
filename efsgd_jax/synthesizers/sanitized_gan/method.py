"""The published family: a generator that learns from sanitised gradients of K discriminators on disjoint shards.

GS-WGAN (arXiv 2006.08265), DP-GAN-DPAC (CVPR 2023, with ``classifier_weight``) and EFSGD (arXiv 2601.15061, with
feedback, ``noise_injection`` and ``reconstruction_weight``) in one step. With judges k(j) and generated images
x_j = G(z_j, y_j) the generator descends::

    image space      sum_j l_k(j)(sanitize(x_j)) / B, the sanitiser clipping and noising each image's gradient
    parameter space  sum_m clip(grad of judge m's mean loss over its B / M images) / M + noise

where l_k = -D_k, mixed with the classifier's cross-entropy; with reconstruction the distance to images of the judge's
shard joins the loss (``generator_inputs.py``). Which shards train and judge is the mechanism's ``turn``; a shard's own
networks are in ``shard.py``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models import Generator
from efsgd_jax.models.critic import sample_latent
from efsgd_jax.privacy.feedback import ErrorFeedbackState
from efsgd_jax.privacy.keys import fresh_key
from efsgd_jax.synthesizers.base import Synthesizer
from efsgd_jax.synthesizers.sanitized_gan.generator_inputs import Inputs, make_inputs
from efsgd_jax.synthesizers.sanitized_gan.mechanism import IMAGE_SCHEDULES, ShardMechanism, Shards
from efsgd_jax.synthesizers.sanitized_gan.members import CHUNK, over_members, put, take
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.sanitizer import make_sanitizer
from efsgd_jax.synthesizers.sanitized_gan.shard import Images, Member, make_shard

PyTree = Any


class State(NamedTuple):
    """Everything that a step changes; all of it private but ``ema``.

    Attributes:
      step: int32, generator steps taken.
      key: of the run.
      params: the generator's.
      ema: of them: what is released.
      members: ``Member`` of every shard, leading axis K.
      residual: of error feedback; in image space with a leading axis B.
      optimizer: the generator's.
    """

    step: jax.Array
    key: jax.Array
    params: PyTree
    ema: PyTree
    members: Member
    residual: PyTree
    optimizer: optax.OptState


class Data(NamedTuple):
    """The training part as shards: uint8 ``[N, S, S, C]``, int ``[N]``, and who holds what."""

    images: jax.Array
    labels: jax.Array
    shards: Shards


class Batch(NamedTuple):
    """What one step reads.

    Attributes:
      training: int ``[U]``, the shards that train.
      real: their images, ``Images`` with a leading axis U.
      nonempty: bool ``[U]``, False for a shard without examples.
      judges: int ``[J]``.
      judged: with reconstruction, images of each judge's shard, leading axis J, else ``()``.
      judged_nonempty: bool ``[J]``.
    """

    training: jax.Array
    real: Images
    nonempty: jax.Array
    judges: jax.Array
    judged: Any
    judged_nonempty: jax.Array


def make_generator(spec: ImageSpec, hp: Hyperparameters) -> Generator:
    return Generator(spec, hp.generator_width, hp.max_width, hp.noise_injection)


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Callable[[PyTree, jax.Array, jax.Array], jax.Array]:
    """``Synthesizer.generate`` alone: all that a released generator needs."""
    generator = make_generator(spec, hp)

    def generate(params: PyTree, key: jax.Array, labels: jax.Array) -> jax.Array:
        z_key, noise_key = jax.random.split(key)
        z = sample_latent(z_key, labels.shape[0], hp.latent, hp.latent_prior)
        return cast(jax.Array, generator.apply(params, z, labels, rngs={"noise": noise_key}))

    return generate


def sanitized_gan(spec: ImageSpec, hyperparameters: Hyperparameters, mechanism: ShardMechanism) -> Synthesizer:
    """Binds the method to a data set's shape and to a mechanism.

    Formal guarantees:
      Real images reach the generator only through judges' gradients, which pass ``mechanism.transform`` before
      anything else; which shards train follows ``mechanism.turn``, and a shard's networks read its own images and the
      generator. Labels, latents and noise of generated images come from keys. So ``mechanism.event(T)`` holds for T
      steps of ``independent``, ``round_robin`` and ``parameter``, but for reconstruction from codes in image space,
      where the generator's derivative at a real image's code is a function of that image (``mechanism.real_codes``).
      Returned metrics are functions of raw examples: private.
    """
    hp = hyperparameters
    generate = make_generate(spec, hp)
    generator = make_generator(spec, hp)

    def decode(params: PyTree, z: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        return cast(jax.Array, generator.apply(params, z, labels, rngs={"noise": key}))

    shard = make_shard(spec, hp, decode, hp.classifier_from + mechanism.round_length)
    adam = optax.adam(hp.generator_learning_rate, hp.adam_b1, hp.adam_b2)
    transform = mechanism.transform(fresh_key())  # keys that count are those of ``step``
    sanitize = make_sanitizer(transform)
    images, judges = mechanism.images_per_step, mechanism.judges
    each = images // judges
    in_image_space = mechanism.schedule in IMAGE_SCHEDULES
    fixed_labels = in_image_space and mechanism.feedback != "none"  # a slot's residual belongs to one class
    inputs = make_inputs(spec, hp, shard, judges, each, fixed_labels=fixed_labels)

    def init(key: jax.Array) -> State:
        run_key, generator_key, noise_key, members_key = jax.random.split(key, 4)
        z, labels = jnp.zeros((1, hp.latent)), jnp.zeros(1, jnp.int32)
        params = generator.init({"params": generator_key, "noise": noise_key}, z, labels)
        # Only zeros are taken from it; with a key that is an argument, or it warns of one that is compiled in.
        empty = mechanism.transform(jax.random.clone(noise_key))
        if in_image_space:
            one = jnp.zeros((images, *spec.shape))
            residual = jax.vmap(lambda x: empty.init(x).residual)(one)
        else:
            residual = empty.init(params).residual
        return State(
            step=jnp.zeros((), jnp.int32),
            key=run_key,
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            members=jax.vmap(shard.init)(jax.random.split(members_key, mechanism.num_shards)),
            residual=residual,
            optimizer=adam.init(params),
        )

    def arrange(key: jax.Array, images: jax.Array, labels: jax.Array) -> Data:
        return Data(images, labels, mechanism.deal(key))

    def imagine(params: PyTree, labels: jax.Array, key: jax.Array) -> Images:
        z_key, noise_key = jax.random.split(key)
        z = sample_latent(z_key, labels.shape[0], hp.latent, hp.latent_prior)
        return Images(decode(params, z, labels, noise_key), labels)

    def pixels_of(data: Data, rows: jax.Array) -> Images:
        return Images(data.images[rows].astype(jnp.float32) / 127.5 - 1.0, data.labels[rows])

    def read(data: Data, key: jax.Array, members: jax.Array, count: int) -> Images:
        return pixels_of(data, mechanism.draw(key, data.shards, members, count))

    def batch(key: jax.Array, step: jax.Array, data: Data) -> Batch:
        turn_key, training_key, judged_key = jax.random.split(jax.random.fold_in(key, step), 3)
        turn = mechanism.turn(turn_key, step)
        judged: Any = read(data, judged_key, turn.judges, inputs.examples) if inputs.examples else ()
        return Batch(
            turn.training,
            read(data, training_key, turn.training, shard.examples),
            data.shards.sizes[turn.training] > 0,
            turn.judges,
            judged,
            data.shards.sizes[turn.judges] > 0,
        )

    def warm_up(state: State, key: jax.Array, data: Data) -> State:
        """One step of every shard's critic against the generator as it is; in chunks: no second stack exists."""
        size = min(CHUNK, mechanism.num_shards)
        chunks = jnp.arange(-(-mechanism.num_shards // size) * size).reshape(-1, size)

        def one(member: Member, rows: jax.Array, key: jax.Array) -> Member:
            fake_key, key = jax.random.split(key)
            real = pixels_of(data, rows)
            return shard.train_critic(member, real, imagine(state.params, real.labels, fake_key), key)

        def some(members: Member, inputs: tuple[jax.Array, jax.Array]) -> tuple[Member, None]:
            chunk, key = inputs
            read_key, train_key = jax.random.split(key)
            rows = mechanism.draw(read_key, data.shards, chunk, hp.critic_batch_size)
            new = over_members(one, take(members, chunk), rows, jax.random.split(train_key, size))
            return put(members, chunk, new, data.shards.sizes[chunk] > 0), None

        members, _ = jax.lax.scan(some, state.members, (chunks, jax.random.split(key, len(chunks))))
        return state._replace(members=members)

    def judged_loss(member: Member, fakes: jax.Array, inputs: Inputs, step: jax.Array) -> jax.Array:
        """``[each]``: what one judge says of its images."""
        loss = shard.judge(member, fakes, inputs.labels, step)
        if hp.reconstruction_weight == 0:
            return loss
        error = jnp.sum(jnp.square(fakes - inputs.targets), axis=(1, 2, 3))
        return loss + jnp.where(inputs.has_target, hp.reconstruction_weight * error, 0.0)

    # Judges are read inside of the loop: a gathered copy of B critics would cost more than what they say.

    def in_images(state: State, members: Member, inputs: Inputs, asked: jax.Array, key: jax.Array) -> Any:
        """Every image's gradient is sanitised, and the chain rule goes on from there into the generator."""
        noise_key, injection_key = jax.random.split(key)

        def loss(params: PyTree, residual: PyTree) -> tuple[jax.Array, jax.Array]:
            z, labels = (x.reshape(images, *x.shape[2:]) for x in (inputs.z, inputs.labels))
            fakes = decode(params, z, labels, injection_key)
            clean = jax.vmap(sanitize, in_axes=(0, 0, None, 0))(fakes, residual, noise_key, jnp.repeat(asked, each))
            of_judges = clean.reshape(judges, each, *spec.shape)
            losses = over_members(
                lambda k, x, p: judged_loss(take(members, k), x, p, state.step), asked, of_judges, inputs
            )
            return jnp.sum(losses), jnp.mean(losses)

        (gradient, residual), mean = jax.grad(loss, argnums=(0, 1), has_aux=True)(state.params, state.residual)
        return gradient, residual, mean

    def in_parameters(state: State, members: Member, inputs: Inputs, asked: jax.Array, key: jax.Array) -> Any:
        """Every judge's gradient of the generator's parameters is one example of the transform."""
        noise_key, injection_key = jax.random.split(key)

        def of_judge(k: jax.Array, inputs: Inputs, key: jax.Array) -> tuple[jax.Array, PyTree]:
            def loss(params: PyTree) -> jax.Array:
                fakes = decode(params, inputs.z, inputs.labels, key)
                return jnp.mean(judged_loss(take(members, k), fakes, inputs, state.step))

            return jax.value_and_grad(loss)(state.params)

        losses, grads = over_members(of_judge, asked, inputs, jax.random.split(injection_key, judges))
        gradient, new = transform.update(grads, ErrorFeedbackState(noise_key, state.residual), state.params)
        return gradient, new.residual, jnp.mean(losses)

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        step_key = jax.random.fold_in(state.key, state.step)
        label_key, fake_key, training_key, prompt_key, release_key = jax.random.split(step_key, 5)
        turns = batch.training.shape[0]
        # All at once: convolutions of a plain batch are faster than in a loop.
        labels = jax.random.randint(label_key, (turns, shard.unpaired), 0, spec.num_classes)
        labels = jnp.concatenate([batch.real.labels[:, : shard.paired], labels], axis=1)
        generated = imagine(state.params, labels.reshape(-1), fake_key)
        generated = jax.tree.map(lambda x: x.reshape(turns, -1, *x.shape[1:]), generated)

        def train(member: Member, real: Images, fake: Images, key: jax.Array) -> tuple[Member, dict[str, jax.Array]]:
            return shard.train(member, state.params, real, fake, state.step, key)

        keys = jax.random.split(training_key, turns)
        trained, metrics = over_members(train, take(state.members, batch.training), batch.real, generated, keys)
        members = put(state.members, batch.training, trained, batch.nonempty)

        given = inputs.draw(members, batch.judges, batch.judged, batch.judged_nonempty, prompt_key)
        release = in_images if in_image_space else in_parameters
        gradient, residual, loss = release(state, members, given, batch.judges, release_key)

        updates, optimizer = adam.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(hp.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        metrics = {name: jnp.mean(x) for name, x in metrics.items()}
        metrics |= {"generator": loss, "batch_size": jnp.asarray(batch.training.shape[0] * shard.examples)}
        return State(state.step + 1, state.key, params, ema, members, residual, optimizer), metrics

    return Synthesizer(
        init=init,
        arrange=arrange,
        batch=batch,
        step=step,
        example_loss=None,
        event=mechanism.event,
        released=lambda state: state.ema,
        generate=generate,
        warm_steps=hp.warm_steps,
        warm_up=warm_up,
    )
