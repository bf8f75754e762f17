"""A diffusion model of what the samples of a private Gaussian mixture lack, trained by DP-SGD.

The mixture is fitted first, with a part of the budget. A real image x of class y has a code z in the released basis and
a blurred image b(z, y), as in ``efsgd_mixture``. The mixture is a good model of the codes, and thus of the blurred
images, but a code does not determine the image. The residual ``x - b(z, y)`` is therefore modelled by a diffusion that
knows code, blurred image and class (``edm``). Its denoiser is trained on real images by DP-SGD, with several draws of
noise in the loss of each image (Dockhorn et al., 2023, arXiv 2210.09929).

To generate an image, a code is drawn from the mixture, then a residual from the diffusion, and they are added. In
contrast to a decoder that is trained by a squared error alone, details are drawn and not averaged.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.models.alternatives import mixtures
from efsgd_jax.models.denoiser import Denoiser
from efsgd_jax.models.guided import Policy
from efsgd_jax.models.guided import guided as guided_by
from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers import gaussian_mixture
from efsgd_jax.synthesizers.base import Generate, Phase, Record
from efsgd_jax.synthesizers.efsgd_mixture.method import check_size
from efsgd_jax.synthesizers.efsgd_mixture.training import Start, start_from, training_phase
from efsgd_jax.synthesizers.gaussian_mixture.appearance import more_contrast, vector_size
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture
from efsgd_jax.synthesizers.gaussian_mixture.sampling import make_sampler
from efsgd_jax.synthesizers.private_diffusion.edm import Network, decided, denoising_loss, guided, noise_factor, sampled
from efsgd_jax.synthesizers.private_diffusion.options import Hyperparameters
from efsgd_jax.synthesizers.public_autoencoder import NAME

PyTree = Any


class ResidualModel(NamedTuple):
    """The diffusion of residuals for images of a shape."""

    spec: ImageSpec
    hp: Hyperparameters

    @property
    def network(self) -> Denoiser:
        return Denoiser(self.spec, self.hp.width, self.hp.blocks, self.hp.levels)

    def init(self, key: jax.Array) -> PyTree:
        images, size = jnp.zeros((1, *self.spec.shape)), min(self.hp.directions, vector_size(self.spec, self.hp))
        return self.network.init(key, images, jnp.zeros(1), images, jnp.zeros((1, size)), jnp.zeros(1, jnp.int32))

    def denoiser(self, params: PyTree, start: Start, labels: jax.Array) -> Any:
        """The network F of ``edm`` for what is known of each image, whose leading axis is repeated if it is 1."""

        dtype = jnp.dtype(self.hp.compute_dtype)

        def cast_floats(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

        def network(scaled: jax.Array, levels: jax.Array) -> jax.Array:
            known = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(scaled), *x.shape[1:])), (*start, labels))
            found = self.network.apply(*cast_floats((params, scaled, levels, *known)))
            return cast(jax.Array, found).astype(scaled.dtype)

        return network

    def loss(self, params: PyTree, start: Start, image: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        """The loss of one image ``[S, S, C]`` in [0, 1], whose blurred image and code have a leading axis of 1."""
        hp, unknown = self.hp, self.spec.num_classes
        if hp.label_dropout:
            key, hide_key = jax.random.split(key)
            label = jnp.where(jax.random.bernoulli(hide_key, hp.label_dropout), unknown, label)
        return denoising_loss(
            self.denoiser(params, start, label[None]),
            image - start.images[0],
            key,
            std=hp.residual_std,
            largest=hp.largest_noise,
            draws=hp.draws,
            level_shift=hp.level_shift,
            level_std=hp.level_std,
        )

    def sample(self, params: PyTree, start: Start, labels: jax.Array, keys: jax.Array) -> jax.Array:
        """Images ``[L, S, S, C]``, not clipped to [0, 1], one for each key."""
        hp, network = self.hp, self.denoiser(params, start, labels)

        def noise(i: jax.typing.ArrayLike) -> jax.Array:
            return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, i), self.spec.shape))(keys)

        if hp.guidance_threshold:
            network = self._by_policy(params, start, labels, noise(0))
        elif hp.guidance != 1:
            unknown = jnp.full_like(labels, self.spec.num_classes)
            network = guided(network, self.denoiser(params, start, unknown), hp.guidance)
        return start.images + sampled(
            network,
            noise,
            std=hp.residual_std,
            largest=hp.largest_noise,
            smallest=hp.smallest_noise,
            steps=hp.sampling_steps,
            churn=hp.churn,
        )

    def _by_policy(self, params: PyTree, start: Start, labels: jax.Array, first: jax.Array) -> Network:
        """F with guidance that turns away from memorised classes, for the noise from which sampling begins."""
        hp, classes = self.hp, jnp.eye(self.spec.num_classes)
        thresholds = hp.guidance_threshold, hp.anchor_from, hp.anchor_to
        policy = Policy(hp.guidance, *thresholds, mixtures(classes), partial(noise_factor, std=hp.residual_std))
        sampler = guided_by(lambda x, level, mixed: self.denoiser(params, start, mixed)(x, level), policy)
        return decided(sampler, first, classes[labels], std=hp.residual_std, largest=hp.largest_noise)[0]


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is published: what ``gaussian_mixture`` publishes, and the denoiser's parameters."""
    denoiser = jax.eval_shape(ResidualModel(spec, hp).init, jax.random.key(0))
    return {**gaussian_mixture.METHOD.released_like(spec, hp), "denoiser": denoiser}


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Generate:
    """Returns ``generate(params, key, labels) -> images`` for what is published: see ``Method.make_generate``."""
    model = ResidualModel(spec, hp)

    def render(params: Any, keys: jax.Array, vectors: jax.Array, labels: jax.Array) -> jax.Array:
        mixture, autoencoder = Mixture(**params["mixture"]), params.get(NAME)
        deform, residual = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        start = start_from(
            mixture, vectors, labels, deform, spec, hp, deformation=hp.deformation, autoencoder=autoencoder
        )
        return more_contrast(model.sample(params["denoiser"], start, labels, residual), hp)

    return make_sampler(render, hp)


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """The phases of the mixture, then DP-SGD for the denoiser.

    Raises:
      UserError: images whose size is not a multiple of ``2^levels``, or that ``gaussian_mixture`` refuses; a guidance
        threshold for one class, from which there is none to turn to.

    Formal guarantees:
      Those of ``training_phase``.
    """
    hp, model = hyperparameters, ResidualModel(spec, hyperparameters)
    *mixture_plan, planned = plan
    check_size(spec, "private_diffusion", 2**hp.levels)
    if hp.guidance_threshold and spec.num_classes < 2:
        raise UserError("config.method.guidance_threshold turns to other classes, and the images have one; set it to 0")

    def loss(params: PyTree, mixture: Mixture, vector: jax.Array, record: Record, key: Any, autoencoder: Any) -> Any:
        deform, key = jax.random.split(key)
        label, image = record.label[None], record.image.astype(jnp.float32) / 255
        start = start_from(mixture, vector[None], label, deform[None], spec, hp, autoencoder=autoencoder)
        return model.loss(params, start, image, record.label, key)

    training = training_phase(planned, hp, model.init, loss, network="denoiser", metric="denoising")
    return [*gaussian_mixture.METHOD.phases(spec, hp, mixture_plan, mesh), training]
