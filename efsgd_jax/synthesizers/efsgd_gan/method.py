"""A conditional GAN whose generator is also a VAE decoder, trained with error-feedback SGD.

After Ma & Zhang, 2026, arXiv 2601.15061. The networks trained on real images are the discriminator D with its auxiliary
classifier cls, the encoder E, and the generator G in its role as decoder. The loss of a real example (x, y) is::

    l(x, y) = w_adv softplus(-D(x, y)) + w_cls CE(cls(x), y) + w_rec (|G(E(x, y), y) - x|^2 + beta KL(E(x, y)))

Each example's gradient is clipped, with one clip norm C_m for each network. The clipped gradients are summed; noise for
the joint sensitivity sqrt(sum_m C_m^2) is added once, and the result is divided by the expected batch size. (With a
single clip norm over all networks, the gradients of the reconstruction, whose norm is a hundred times larger, would
leave almost nothing of the discriminator's gradient on real images.)

Losses on generated images are post-processing and need no noise. The discriminator's update also includes the gradient
of ``w_adv softplus(D(G(z, y), y))``, clipped to the same norm. Every few steps, the generator takes a step of its own
on ``softplus(-D(G(z, y), y)) + v_cls CE(cls(G(z, y)), y)``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.models import Discriminator, DiscriminatorOutput, Encoder, Generator, Posterior
from efsgd_jax.models.sizes import check_image_size
from efsgd_jax.privacy.clipping import clipped_grad
from efsgd_jax.privacy.devices import DATA
from efsgd_jax.privacy.dp_sgd import DpSgdMechanism
from efsgd_jax.privacy.gradient_access import GradientAccess
from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.base import Phase, Released
from efsgd_jax.synthesizers.efsgd_gan.augmentation import moved_copies
from efsgd_jax.synthesizers.efsgd_gan.options import Hyperparameters

PyTree = Any


class State(NamedTuple):
    """The training state.

    Attributes:
      step: number of private updates taken.
      params: parameters, in the groups ``discriminator``, ``encoder`` and ``generator``.
      ema: moving average of the generator's parameters, which is released.
      residual: residual of error feedback; private.
      private_optimizer: state of Adam for the private update of all parameters.
      generator_optimizer: state of Adam for the generator's own step.
    """

    step: jax.Array
    params: dict[str, PyTree]
    ema: PyTree
    residual: PyTree
    private_optimizer: optax.OptState
    generator_optimizer: optax.OptState


def _floats_as(dtype: str, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def make_generator(spec: ImageSpec, hp: Hyperparameters) -> Generator:
    return Generator(spec, hp.generator_width, hp.max_width, hp.noise_injection)


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Callable[[PyTree, jax.Array, jax.Array], jax.Array]:
    """Returns ``generate(params, key, labels) -> images`` for the released generator: see ``Method.make_generate``."""
    generator = make_generator(spec, hp)

    def generate(params: PyTree, key: jax.Array, labels: jax.Array) -> jax.Array:
        z_key, noise_key = jax.random.split(key)
        z = jax.random.normal(z_key, (labels.shape[0], hp.latent))
        z = z.astype(jax.tree.leaves(params)[0].dtype)
        images = cast(jax.Array, generator.apply(params, z, labels, rngs={"noise": noise_key}))
        return images.astype(jnp.float32)

    return generate


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """A single phase: error-feedback SGD on real images.

    Args:
      spec: shape of the images and number of classes.
      hyperparameters: network sizes, weights of the losses and learning rates.
      plan: the planned phase; its mechanism states how private gradients are sampled, clipped, fed back and noised.
      mesh: the devices, on an axis ``data``, over which batches are split; the state is replicated. None for a single
        device.

    Raises:
      UserError: the networks cannot have this image size, or the number of devices does not divide
        ``generated_batch_size``.

    Formal guarantees:
      A step reads real examples through one ``access.clipped_gradient`` only; everything else in the state is a
      function of that release, of earlier ones and of keys, but for the residual, which goes back into the mechanism.
      The returned metrics are functions of released parameters; those of raw examples are the access's.
    """
    (planned,) = plan
    mechanism = planned.mechanism
    assert isinstance(mechanism, DpSgdMechanism)
    check_image_size(spec)
    if mesh is not None and hyperparameters.generated_batch_size % mesh.size:
        raise UserError(
            f"config.method.generated_batch_size is {hyperparameters.generated_batch_size}, which {mesh.size} devices "
            f"cannot share equally; use a multiple of {mesh.size}"
        )
    hp = hyperparameters
    generator = make_generator(spec, hp)
    generate = make_generate(spec, hp)
    discriminator = Discriminator(spec, hp.discriminator_width, hp.max_width, hp.features)
    encoder = Encoder(spec, hp.latent, hp.encoder_width, hp.max_width)

    def apply(module: Any, params: PyTree, *inputs: jax.Array, **options: Any) -> Any:
        params, inputs = _floats_as(hp.compute_dtype, (params, inputs))
        return _floats_as("float32", module.apply(params, *inputs, **options))

    def discriminate(params: PyTree, images: jax.Array, labels: jax.Array) -> DiscriminatorOutput:
        return cast(DiscriminatorOutput, apply(discriminator, params, images, labels))

    clip_norms = mechanism.l2_norm_clip
    if not isinstance(clip_norms, Mapping):
        raise ValueError("efsgd_gan clips per network: l2_norm_clip must map discriminator, encoder and generator.")

    private_adam = optax.adam(hp.learning_rate, b1=hp.adam_b1)
    generator_adam = optax.adam(hp.generator_learning_rate, b1=hp.adam_b1)

    def real_loss(params: PyTree, example: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        image, label = example
        image, label = image[None].astype(jnp.float32) / 127.5 - 1.0, label[None]
        if hp.augmentation_multiplicity > 1:
            key, move_key = jax.random.split(key)
            image = moved_copies(move_key, image[0], hp.augmentation_multiplicity)
            label = jnp.repeat(label, hp.augmentation_multiplicity)
        z_key, noise_key = jax.random.split(key)
        output = discriminate(params["discriminator"], image, label)
        posterior = cast(Posterior, apply(encoder, params["encoder"], image, label))
        z = posterior.sample(z_key)
        rebuilt = cast(jax.Array, apply(generator, params["generator"], z, label, rngs={"noise": noise_key}))
        terms = {
            "adversarial": jnp.mean(jax.nn.softplus(-output.realness)),
            "classifier": jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output.class_logits, label)),
            "reconstruction": jnp.sum(jnp.square(rebuilt - image)) / image.shape[0],
            "kl": jnp.mean(posterior.kl_to_prior()),
        }
        total = (
            hp.adversarial_weight * terms["adversarial"]
            + hp.classifier_weight * terms["classifier"]
            + hp.reconstruction_weight * (terms["reconstruction"] + hp.kl_weight * terms["kl"])
        )
        return total, terms

    def generated_loss(params: PyTree, example: Any, key: jax.Array) -> tuple[jax.Array, None]:
        del key
        image, label = example
        realness = discriminate(params, image[None], label[None]).realness[0]
        return hp.adversarial_weight * jax.nn.softplus(realness), None

    def generator_loss(params: PyTree, discriminator_params: PyTree, key: jax.Array, labels: jax.Array) -> jax.Array:
        output = discriminate(
            discriminator_params, divided(generate(_floats_as(hp.compute_dtype, params), key, labels)), labels
        )
        classes = optax.softmax_cross_entropy_with_integer_labels(output.class_logits, labels)
        return jnp.mean(jax.nn.softplus(-output.realness) + hp.generator_classifier_weight * classes)

    generated_gradient = clipped_grad(
        generated_loss, clip_norms["discriminator"], microbatch_size=hp.microbatch_size, mesh=mesh
    )

    def divided(images: jax.Array) -> jax.Array:
        """Divides generated images among the devices, each of which generates its part."""
        if mesh is None:
            return images
        return jax.lax.with_sharding_constraint(images, NamedSharding(mesh, PartitionSpec(DATA)))

    def init(key: jax.Array, released: Released) -> State:
        del released
        label_key, *keys = jax.random.split(key, 5)
        labels = jax.random.randint(label_key, (1,), 0, spec.num_classes)
        z, image = jnp.zeros((1, hp.latent)), jnp.zeros((1, *spec.shape))
        params = {
            "discriminator": discriminator.init(keys[0], image, labels),
            "encoder": encoder.init(keys[1], image, labels),
            "generator": generator.init({"params": keys[2], "noise": keys[3]}, z, labels),
        }
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params["generator"]),  # a copy, so that the buffers of a state may be donated
            residual=mechanism.initial_residual(params),
            private_optimizer=private_adam.init(params),
            generator_optimizer=generator_adam.init(params["generator"]),
        )

    def step(state: State, access: GradientAccess, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        label_key, fake_key, generator_key = jax.random.split(key, 3)
        params = state.params
        gradient, residual = access.clipped_gradient(
            real_loss, params, state.residual, microbatch_size=hp.microbatch_size
        )

        n = hp.generated_batch_size
        fake_labels = jax.random.randint(label_key, (n,), 0, spec.num_classes)
        fakes = divided(generate(_floats_as(hp.compute_dtype, params["generator"]), fake_key, fake_labels))
        fake = generated_gradient(params["discriminator"], (fakes, fake_labels), jax.random.split(fake_key, n))
        discriminator_gradient = jax.tree.map(lambda r, f: r + f / n, gradient["discriminator"], fake.clipped_sum)
        gradient = {**gradient, "discriminator": discriminator_gradient}
        updates, private_optimizer = private_adam.update(gradient, state.private_optimizer, params)
        params = optax.apply_updates(params, updates)

        def generator_step(carry: tuple[PyTree, optax.OptState]) -> tuple[tuple[PyTree, optax.OptState], jax.Array]:
            weights, optimizer = carry
            loss, g = jax.value_and_grad(generator_loss)(weights, params["discriminator"], generator_key, fake_labels)
            u, optimizer = generator_adam.update(g, optimizer, weights)
            return (optax.apply_updates(weights, u), optimizer), loss

        (weights, generator_optimizer), loss = jax.lax.cond(
            (state.step + 1) % hp.private_steps_per_generator_step == 0,
            generator_step,
            lambda carry: (carry, jnp.full((), jnp.nan)),
            (params["generator"], state.generator_optimizer),
        )
        params = {**params, "generator": weights}
        decay = jnp.minimum(hp.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(weights, state.ema, 1.0 - decay)
        next_state = State(state.step + 1, params, ema, residual, private_optimizer, generator_optimizer)
        return next_state, {"generated": jnp.mean(fake.losses), "generator": loss}

    return [
        Phase(
            planned,
            init,
            step,
            release=lambda state: state.ema,
            parameters=lambda state: state.params,
            shown=("reconstruction", "adversarial", "classifier", "generator"),
        )
    ]
