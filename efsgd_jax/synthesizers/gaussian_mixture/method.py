"""A generator without a neural network: a Gaussian mixture for each class, and a linear classifier that re-ranks.

All phases are full-batch Gaussian releases: those of the re-ranking classifier (``reranker``), then those of the
mixture (``fit``). The mixture describes vectors of pose-normalised images and their poses (``appearance``). To generate
an image of class y, candidates are sampled from the mixture of class y, one after the other. Each is accepted with the
reranker's probability p(y | image). This favours candidates that the classifier can tell from other classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.privacy import PlannedPhase
from efsgd_jax.synthesizers.base import Generate, Phase, Released
from efsgd_jax.synthesizers.gaussian_mixture.appearance import to_image, vector_size
from efsgd_jax.synthesizers.gaussian_mixture.fit import empty_mixture, fit_phases
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, draw
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters
from efsgd_jax.synthesizers.gaussian_mixture.sampling import make_sampler
from efsgd_jax.synthesizers.public_autoencoder import NAME, autoencoder_phase, decoder_of
from efsgd_jax.synthesizers.public_autoencoder import released_like as released_autoencoder
from efsgd_jax.synthesizers.reranking import reranker_of
from efsgd_jax.synthesizers.reranking.whitened import DIRECTIONS, Draw, directions_phase

# Largest number of components of a vector. Beyond it, estimating the second moment, of 18 million numbers, needs more
# examples than data sets have.
MAX_SIZE = 4200


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is published: the mixture, the reranker's weights and, with one, the autoencoder's
    decoder."""
    reranker = jax.ShapeDtypeStruct((reranker_of(hp).num_features(spec.shape), spec.num_classes), jnp.float32)
    found = {"mixture": jax.eval_shape(lambda: empty_mixture(spec, hp)._asdict()), "reranker": reranker}
    return found | ({NAME: decoder_of(released_autoencoder(spec, hp))} if hp.autoencoder_width else {})


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Generate:
    """Returns ``generate(params, key, labels) -> images`` for the released mixture: see ``Method.make_generate``."""

    def render(params: Any, keys: jax.Array, vectors: jax.Array, labels: jax.Array) -> jax.Array:
        return jax.vmap(lambda k, v: to_image(k, v, spec, hp, params.get(NAME)))(keys, vectors)

    return make_sampler(render, hp)


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """The phases, bound to the shape of a data set: those of the mixture and, if there are several candidates, the
    reranker, which comes first unless its directions are those of generated images.

    Raises:
      UserError: ``low_pass`` is larger than the side of the images, or the images are too large for a second moment.
    """
    del mesh
    hp, named = hyperparameters, {p.name: p for p in plan}
    if hp.low_pass > spec.image_size:
        raise UserError(
            f"config.method.low_pass is {hp.low_pass}, but images have {spec.image_size} pixels a side; set at most "
            f"--config.method.low_pass={spec.image_size}"
        )
    size = vector_size(spec, hp)
    if size > MAX_SIZE:
        fewer = "autoencoder_channels=4" if hp.autoencoder_width else "low_pass=16 (16x16 coefficients)"
        raise UserError(
            f"config.method.name gaussian_mixture represents an image by {size} numbers, but at most {MAX_SIZE} are "
            f"supported; set --config.method.{fewer} or a smaller --config.data.image_size"
        )
    first = [autoencoder_phase(spec, hp, named[NAME])] if NAME in named else []
    *fit, last = fit_phases(spec, hp, named)
    mixture = [*fit, _publishing(last, spec, hp)]
    if "reranker" not in named:
        return [*first, *mixture]
    reranker = reranker_of(hp).phase(spec, named["reranker"])
    if DIRECTIONS not in named:
        return [*first, reranker, *mixture]
    directions = directions_phase(spec, hp, named[DIRECTIONS], _make_draw(spec, hp))
    return [*first, *mixture, directions, _with_mixture(reranker)]


def published(released: Released) -> Any:
    """What the phases of the mixture publish, of what all phases released: ``{"mixture": ..., "reranker": ...}``."""
    last = released.get("reranker")
    return last if isinstance(last, Mapping) else released["moments"]


def _make_draw(spec: ImageSpec, hp: Hyperparameters) -> Draw:
    def draw_images(released: Released, key: jax.Array, count: int) -> jax.Array:
        found = published(released)
        mixture, keys = Mixture(**found["mixture"]), jax.random.split(key, (2, count))
        vectors = jax.vmap(lambda k, y: draw(mixture, k, y))(keys[0], jnp.arange(count) % spec.num_classes)
        return jax.vmap(lambda k, v: to_image(k, v, spec, hp, found.get(NAME)))(keys[1], vectors)

    return draw_images


def _with_mixture(reranker: Phase) -> Phase:
    """The phase of a reranker that follows the mixture, changed to release all that is published."""

    def init(key: jax.Array, released: Released) -> Any:
        return reranker.init(key, released), jax.tree.map(jnp.asarray, released["moments"])

    def step(state: Any, access: Any, key: jax.Array) -> Any:
        new, metrics = reranker.step(state[0], access, key)
        return (new, state[1]), metrics

    return reranker._replace(
        init=init, step=step, release=lambda state: {**state[1], "reranker": reranker.release(state[0])}
    )


def _publishing(moments: Phase, spec: ImageSpec, hp: Hyperparameters) -> Phase:
    """The phase ``moments``, changed to release all that is published; see ``released_like``.

    Reranker and autoencoder come from earlier phases. Without a reranker, its weights are zeros.
    """

    def init(key: jax.Array, released: Any) -> Any:
        absent = jnp.zeros((reranker_of(hp).num_features(spec.shape), spec.num_classes))
        public = {NAME: decoder_of(released[NAME])} if NAME in released else {}
        return moments.init(key, released), {"reranker": released.get("reranker", absent), **public}

    def step(state: Any, access: Any, key: jax.Array) -> Any:
        fitted, metrics = moments.step(state[0], access, key)
        return (fitted, state[1]), metrics

    def release(state: Any) -> dict[str, Any]:
        return {"mixture": moments.release(state[0])._asdict(), **state[1]}

    return moments._replace(init=init, step=step, release=release)
