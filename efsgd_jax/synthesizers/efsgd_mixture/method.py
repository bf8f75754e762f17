"""A decoder trained by DP-SGD on the latent space of a private Gaussian mixture.

The mixture is fitted first, with a part of the budget. Its samples are blurred images, because they are sums of a few
principal directions. Each has a code z: its coordinates in the released basis V, about the released class mean m_y. The
code of a real image follows from the same basis, without a trained encoder::

    z(x, y) = V^T (to_vector(x) - m_y)        b(z, y) = to_image(m_y + V z)        G(z, y) = b(z, y) + f(b(z, y), z, y)

The decoder f is trained on real images by DP-SGD with the reconstruction loss of arXiv 2601.15061, and with error
feedback if ``config.privacy.feedback`` is set::

    l(x, y) = |G(z(x, y), y) - x|^2 + w |e(G(z(x, y), y)) - e(x)|^2

where e are strengths of edges (``models.edges``) and w is ``edge_weight``. A generated image is ``G(z, y)`` for a code
that is drawn from the mixture of class y. Before training, f is zero, so that ``G(z, y) = b(z, y)``: the images are
those of the mixture.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.models.edges import edge_strengths
from efsgd_jax.models.refiner import Refiner
from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers import gaussian_mixture
from efsgd_jax.synthesizers.base import Generate, Phase, Record
from efsgd_jax.synthesizers.efsgd_mixture.options import Hyperparameters
from efsgd_jax.synthesizers.efsgd_mixture.training import start_from, training_phase
from efsgd_jax.synthesizers.gaussian_mixture.appearance import more_contrast, vector_size
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture
from efsgd_jax.synthesizers.gaussian_mixture.sampling import make_sampler
from efsgd_jax.synthesizers.public_autoencoder import NAME

PyTree = Any


class Decoder(NamedTuple):
    """The generator G, for batches of vectors in the format of ``appearance.to_vector``."""

    spec: ImageSpec
    hp: Hyperparameters

    @property
    def network(self) -> Refiner:
        return Refiner(self.spec, self.hp.width, self.hp.blocks, self.hp.noise_injection)

    def init(self, key: jax.Array) -> PyTree:
        size = min(self.hp.directions, vector_size(self.spec, self.hp))
        inputs = jnp.zeros((1, *self.spec.shape)), jnp.zeros((1, size)), jnp.zeros(1, jnp.int32)
        return self.network.init({"params": key, "noise": key}, *inputs)

    def __call__(
        self,
        params: PyTree,
        mixture: Mixture,
        vectors: jax.Array,
        labels: jax.Array,
        keys: jax.Array,
        deformation: float = 0.0,
        autoencoder: PyTree = None,
    ) -> jax.Array:
        """``G``: images ``[L, S, S, C]``, not clipped to [0, 1], for vectors ``[L, D]`` and a key for each of them.

        With ``deformation``, as in ``AppearanceOptions``, the blurred images are deformed before they are corrected.
        ``autoencoder`` is that of ``to_image``. The key of an image is that of its deformation; the injected noise of
        all images comes from the first key.
        """
        start = start_from(
            mixture, vectors, labels, keys, self.spec, self.hp, deformation=deformation, autoencoder=autoencoder
        )
        rngs = {"noise": jax.random.fold_in(keys[0], 1)}
        return cast(jax.Array, self.network.apply(params, *start, labels, rngs=rngs))


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is published: the mixture, the reranker's weights and the decoder's parameters."""
    decoder = jax.eval_shape(Decoder(spec, hp).init, jax.random.key(0))
    return {**gaussian_mixture.METHOD.released_like(spec, hp), "decoder": decoder}


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Generate:
    """Returns ``generate(params, key, labels) -> images`` for what is published: see ``Method.make_generate``."""
    decoder = Decoder(spec, hp)

    def render(params: Any, keys: jax.Array, vectors: jax.Array, labels: jax.Array) -> jax.Array:
        mixture, autoencoder = Mixture(**params["mixture"]), params.get(NAME)
        images = decoder(params["decoder"], mixture, vectors, labels, keys, hp.deformation, autoencoder)
        return more_contrast(images, hp)

    return make_sampler(render, hp)


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """The phases of the mixture, then error-feedback SGD for the decoder.

    Raises:
      UserError: images of an odd size, or one that ``gaussian_mixture`` refuses.

    Formal guarantees:
      Those of ``training_phase``.
    """
    hp, decoder = hyperparameters, Decoder(spec, hyperparameters)
    *mixture_plan, planned = plan
    check_size(spec, "efsgd_mixture")

    def loss(params: PyTree, mixture: Mixture, vector: jax.Array, record: Record, key: Any, autoencoder: Any) -> Any:
        rebuilt = decoder(params, mixture, vector[None], record.label[None], key[None], autoencoder=autoencoder)
        return reconstruction_error(rebuilt, record, hp)

    training = training_phase(planned, hp, decoder.init, loss, network="decoder", metric="reconstruction")
    return [*gaussian_mixture.METHOD.phases(spec, hp, mixture_plan, mesh), training]


def reconstruction_error(rebuilt: jax.Array, record: Record, hp: Hyperparameters) -> jax.Array:
    """The loss l of the module's docstring, for the image ``[1, S, S, C]`` that G returns and the real one."""
    real = record.image[None].astype(jnp.float32) / 255
    error = jnp.sum(jnp.square(rebuilt - real))
    if hp.edge_weight:
        error += hp.edge_weight * jnp.sum(jnp.square(edge_strengths(rebuilt) - edge_strengths(real)))
    return error


def check_size(spec: ImageSpec, method: str, multiple: int = 2) -> None:
    """Raises ``UserError`` if the size of the images is not a multiple of ``multiple``."""
    if spec.image_size % multiple:
        wanted = "even image size" if multiple == 2 else f"image size that is a multiple of {multiple}"
        raise UserError(
            f"config.method.name {method} needs an {wanted}, not {spec.image_size}; set "
            f"--config.data.image_size={-(-spec.image_size // multiple) * multiple}"
        )
