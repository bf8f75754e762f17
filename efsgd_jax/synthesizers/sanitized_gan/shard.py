"""The networks that one shard trains on its own raw images: discriminator, classifier and encoder. All private.

Their losses for real images x with labels y, generated images x' = G(z, y) of the current generator G, and random
interpolations x^ between both, each time the shard trains::

    discriminator  D(x', y) - D(x, y) + lambda (|grad D(x^, y)| - 1)^2 + epsilon D(x, y)^2     (GS-WGAN)
    classifier     re-initialised; a few steps of CE on (x', y), then a few on (x, y)          (DP-GAN-DPAC)
    encoder        |G(E(x), y) - x|^2 + beta KL(E(x))                                          (EFSGD)

The weights are hyperparameters: lambda is ``gradient_penalty``, epsilon ``logit_penalty`` (not the epsilon of
privacy), and beta ``kl_weight``. Names with ``critic`` are of the discriminator, as GS-WGAN calls it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.critic import Classifier, Critic, ShardEncoder, code_to_latent
from efsgd_jax.models.encoder import Posterior
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters

PyTree = Any
# decode(params, z, labels, key) -> images: applies the generator.
Decode = Callable[[PyTree, jax.Array, jax.Array, jax.Array], jax.Array]


class Member(NamedTuple):
    """Parameters of one shard's networks, and the states of the optimisers that are kept between steps.

    ``()`` stands for networks that the configuration does not use.
    """

    critic: PyTree
    critic_optimizer: PyTree
    classifier: PyTree
    encoder: PyTree
    encoder_optimizer: PyTree


class Images(NamedTuple):
    """Real or generated images: pixels float32 ``[n, S, S, C]`` in [-1, 1], and labels int ``[n]``."""

    pixels: jax.Array
    labels: jax.Array


def pixels_of(records: Record) -> Images:
    """Converts records, with uint8 pixels, to images with pixels in [-1, 1]."""
    return Images(records.image.astype(jnp.float32) / 127.5 - 1.0, records.label)


class Shard(NamedTuple):
    """Pure functions that initialise, train and evaluate the networks of one shard.

    Attributes:
      init: ``init(key) -> member`` initialises the networks.
      train: ``train(member, generator, real, generated, step, key) -> (member, metrics)`` trains all networks of the
        shard for one turn. ``real`` are ``examples`` images of the shard. ``generated`` are ``paired`` generated images
        which have the labels of the first ``paired`` real images, followed by ``unpaired`` generated images with any
        labels. ``step`` is the number of the generator's step: classifiers are trained from a certain one on.
      train_critic: ``train_critic(member, real, generated, key) -> member`` takes one step of the
        discriminator, for warm-up.
      generator_loss: ``generator_loss(member, images, labels, step)`` returns the generator's loss on each generated
        image, by the shard's networks: ``[n]``.
      encode: ``encode(member, pixels, key) -> z`` returns the latents ``[n, latent]`` of real images.
      examples: number of images of the shard that ``train`` reads.
      paired: number of generated images for the discriminator.
      unpaired: number of generated images for the classifier.
    """

    init: Callable[[jax.Array], Member]
    train: Callable[..., tuple[Member, dict[str, jax.Array]]]
    train_critic: Callable[..., Member]
    generator_loss: Callable[..., jax.Array]
    encode: Callable[..., jax.Array]
    examples: int
    paired: int
    unpaired: int


def make_shard(spec: ImageSpec, hp: Hyperparameters, decode: Decode, classifiers_count_from: int) -> Shard:
    """Returns the functions of a shard for a data set's shape, hyperparameters and a generator.

    Args:
      spec: shape of the images and number of classes.
      hp: network sizes, weights of the losses and learning rates.
      decode: ``decode(params, z, labels, key) -> images``, the generator.
      classifiers_count_from: the step from which the classifiers of all shards that may score images have been trained;
        from then on they are part of the generator's loss.
    """
    critic_net, classifier_net = Critic(spec, hp.critic_width), Classifier(spec, hp.critic_width)
    encoder_net = ShardEncoder(hp.latent, hp.critic_width)
    adam = optax.adam(hp.critic_learning_rate, hp.adam_b1, hp.adam_b2)
    classifier_adam = optax.adam(hp.classifier_learning_rate)
    size = hp.critic_batch_size
    steps = {"critic": hp.critic_steps}
    steps["classifier"] = hp.classifier_real_steps if hp.classifier_weight > 0 else 0
    steps["encoder"] = hp.encoder_steps if hp.reconstruction_weight > 0 else 0

    def score(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
        return cast(jax.Array, critic_net.apply(params, images, labels))

    def critic_loss(params: PyTree, real: Images, fake: jax.Array, key: jax.Array) -> tuple[jax.Array, dict]:
        both = score(params, jnp.concatenate([real.pixels, fake]), jnp.tile(real.labels, 2))
        on_real, on_fake = jnp.split(both, 2)
        mix = jax.random.uniform(key, (fake.shape[0], 1, 1, 1))
        between = mix * real.pixels + (1 - mix) * fake
        slope = jax.grad(lambda x: jnp.sum(score(params, x, real.labels)))(between)
        # With 1e-12, since the derivative of a square root at 0 is infinite.
        length = jnp.sqrt(jnp.sum(jnp.square(slope), axis=(1, 2, 3)) + 1e-12)
        penalty = jnp.mean(jnp.square(length - 1))
        distance = jnp.mean(on_real) - jnp.mean(on_fake)
        loss = -distance + hp.gradient_penalty * penalty + hp.logit_penalty * jnp.mean(jnp.square(on_real))
        return loss, {"wasserstein": distance, "gradient_penalty": penalty}

    def descend(loss: Callable, optimizer: Any, params: PyTree, state: PyTree, *args: Any) -> tuple[Any, Any, Any]:
        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params, *args)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, aux

    def train_critic(member: Member, real: Images, fake: Images, key: jax.Array) -> tuple[Member, dict]:
        params, state, aux = descend(critic_loss, adam, member.critic, member.critic_optimizer, real, fake.pixels, key)
        return member._replace(critic=params, critic_optimizer=state), aux

    def cross_entropy(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = cast(jax.Array, classifier_net.apply(params, images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def classifier_loss(params: PyTree, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss = jnp.mean(cross_entropy(params, images, labels))
        return loss, loss

    def train_classifier(generated: Images, real: Images, key: jax.Array) -> tuple[PyTree, jax.Array]:
        """Trains a newly initialised classifier, so that it depends on the shard's last batches only."""

        def on_batch(carry: Any, batch: Images) -> tuple[Any, jax.Array]:
            params, state, loss = descend(classifier_loss, classifier_adam, *carry, *batch)
            return (params, state), loss

        params = classifier_net.init(key, jnp.zeros((1, *spec.shape)))
        batches = jax.tree.map(lambda *x: jnp.concatenate(x), generated, real)
        (params, _), losses = jax.lax.scan(on_batch, (params, classifier_adam.init(params)), batches)
        return params, losses[-1]

    def code(encoder: PyTree, images: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        posterior = cast(Posterior, encoder_net.apply(encoder, images))
        return code_to_latent(posterior.sample(key), hp.latent_prior), posterior.kl_to_prior()

    def encoder_loss(encoder: PyTree, generator: PyTree, real: Images, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        z_key, noise_key = jax.random.split(key)
        z, kl = code(encoder, real.pixels, z_key)
        error = jnp.sum(jnp.square(decode(generator, z, real.labels, noise_key) - real.pixels), axis=(1, 2, 3))
        return jnp.mean(error + hp.kl_weight * kl), jnp.mean(error)

    def init(key: jax.Array) -> Member:
        critic_key, classifier_key, encoder_key = jax.random.split(key, 3)
        image, label = jnp.zeros((1, *spec.shape)), jnp.zeros(1, jnp.int32)
        critic = critic_net.init(critic_key, image, label)
        classifier = classifier_net.init(classifier_key, image) if steps["classifier"] else ()
        encoder = encoder_net.init(encoder_key, image) if steps["encoder"] else ()
        return Member(critic, adam.init(critic), classifier, encoder, adam.init(encoder) if steps["encoder"] else ())

    def train(
        member: Member, generator: PyTree, real: Images, generated: Images, step: jax.Array, key: jax.Array
    ) -> tuple[Member, dict[str, jax.Array]]:
        critic_key, classifier_key, encoder_key = jax.random.split(key, 3)
        real, generated = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), (real, generated))

        def batches(images: Images, first: int, count: int) -> Images:
            return jax.tree.map(lambda x: x[first : first + count], images)

        def on_critic(member: Member, inputs: tuple[Images, Images, jax.Array]) -> tuple[Member, dict]:
            return train_critic(member, *inputs)

        critic, classifier, encoder = steps.values()
        inputs = batches(real, 0, critic), batches(generated, 0, critic), jax.random.split(critic_key, critic)
        member, metrics = jax.lax.scan(on_critic, member, inputs)
        metrics = jax.tree.map(jnp.mean, metrics)
        if classifier:
            fresh, loss = jax.lax.cond(
                step >= hp.classifier_from,
                lambda: train_classifier(
                    batches(generated, critic, hp.classifier_generated_steps),
                    batches(real, critic, classifier),
                    classifier_key,
                ),
                lambda: (member.classifier, jnp.full((), jnp.nan)),
            )
            member, metrics = member._replace(classifier=fresh), {**metrics, "classifier": loss}
        if encoder:

            def on_encoder(carry: Any, inputs: tuple[Images, jax.Array]) -> tuple[Any, jax.Array]:
                params, state, error = descend(encoder_loss, adam, *carry, generator, *inputs)
                return (params, state), error

            rest = batches(real, critic + classifier, encoder), jax.random.split(encoder_key, encoder)
            (params, state), errors = jax.lax.scan(on_encoder, (member.encoder, member.encoder_optimizer), rest)
            member = member._replace(encoder=params, encoder_optimizer=state)
            metrics = {**metrics, "reconstruction": jnp.mean(errors)}
        return member, metrics

    def generator_loss(member: Member, images: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        adversarial = -score(member.critic, images, labels)
        if not steps["classifier"]:
            return adversarial
        mixed = hp.adversarial_weight * adversarial + hp.classifier_weight * cross_entropy(
            member.classifier, images, labels
        )
        return jnp.where(step >= classifiers_count_from, mixed, adversarial)

    return Shard(
        init,
        train,
        lambda member, real, fake, key: train_critic(member, real, fake, key)[0],
        generator_loss,
        lambda member, images, key: code(member.encoder, images, key)[0],
        size * sum(steps.values()),
        size * steps["critic"],
        size * hp.classifier_generated_steps if steps["classifier"] else 0,
    )
