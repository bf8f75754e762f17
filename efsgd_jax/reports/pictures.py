"""Images by the released generator: samples of each class, and interpolations in latent space (walks)."""

from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.data import to_uint8
from efsgd_jax.models.critic import sample_latent
from efsgd_jax.reports.images import picture, strip
from efsgd_jax.reports.material import Released
from efsgd_jax.reports.sections import Section
from efsgd_jax.runs.sampling import Samples, sample
from efsgd_jax.synthesizers import method_named

# Largest number of classes whose samples are shown.
MAX_CLASSES = 20
# Number of samples of each class, and how many are in a row.
SAMPLES, COLUMNS = 20, 10
# Number of images along an interpolation between two latents.
FRAMES = 10
# Largest width of a picture in CSS pixels.
WIDTH = 500


def drawn_samples(released: Released) -> Samples:
    """``SAMPLES`` generated images of each class, from a public seed.

    Formal guarantees:
      Post-processing of the released generator.
    """
    return sample(released.directory.root, SAMPLES * len(released.class_names), seed=0)


def samples_section(drawn: Samples, guarantee: bool) -> Section:
    """The section with a grid of generated images for each class.

    Args:
      drawn: that of ``drawn_samples``.
      guarantee: whether the run has one, so that the images may be published.
    """
    names = drawn.class_names
    figures = []
    for c, name in enumerate(names[:MAX_CLASSES]):
        alt = f"{SAMPLES} generated images of class {name}"
        figures.append((name, picture(strip(drawn.images[drawn.labels == c], COLUMNS), alt, width=WIDTH)))
    data = {"figures": figures, "num_classes": len(names), "guarantee": guarantee}
    return Section("samples", "Samples", "samples.html", data)


def walks_section(released: Released) -> Section | None:
    """The section with an interpolation in latent space for each class; None if the method has no latent space."""
    names = released.class_names
    if method_named(released.config["method"]["name"]).make_generator is None:
        return None
    frames = walks(released, min(len(names), MAX_CLASSES))
    figures = []
    for name, images in zip(names, frames, strict=False):  # only the first classes have frames
        alt = f"{FRAMES} generated images of class {name}, each a little different from the last"
        figures.append((name, picture(strip(images), alt, width=WIDTH)))
    return Section("walks", "Interpolations", "walks.html", {"figures": figures, "num_classes": len(names)})


def walks(released: Released, num_classes: int) -> np.ndarray:
    """Images along an interpolation between two latents for each class; uint8 ``[num_classes, FRAMES, S, S, C]``.

    The two latents are sampled from the method's prior with a public key. The injected noise is the same for all
    frames.

    Formal guarantees:
      Post-processing of the released generator.
    """
    settings = released.config["method"]
    method = method_named(settings["name"])
    hp = method.read(settings)
    assert method.make_generator is not None  # ``walks_section`` checks this
    generator = method.make_generator(released.spec, hp)
    params = flax.serialization.msgpack_restore(released.directory.generator.read_bytes())
    prior = getattr(hp, "latent_prior", "normal")
    ends_key, noise_key = jax.random.split(jax.random.key(0))
    ends = sample_latent(ends_key, 2 * num_classes, hp.latent, prior).reshape(num_classes, 2, hp.latent)
    t = jnp.linspace(0.0, 1.0, FRAMES)
    between = jax.vmap(_line if prior == "bernoulli" else _great_circle, in_axes=(0, 0, None))
    z = between(ends[:, 0], ends[:, 1], t).reshape(-1, hp.latent)
    labels = jnp.repeat(jnp.arange(num_classes), FRAMES)

    def one(z: jax.Array, label: jax.Array) -> Any:
        return generator.apply(params, z[None], label[None], rngs={"noise": noise_key})[0]

    images = to_uint8(np.asarray(jax.jit(jax.vmap(one))(z, labels), np.float32))
    return images.reshape(num_classes, FRAMES, *released.spec.shape)


def _line(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    return a + t[:, None] * (b - a)


def _great_circle(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Spherical interpolation. Its points have norms that are typical of a normal prior, unlike those of a straight
    line, which are smaller."""
    cosine = jnp.vdot(a, b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-12)
    angle = jnp.arccos(jnp.clip(cosine, -0.9999, 0.9999))  # clipped, so that sin(angle) is not 0
    return (jnp.sin((1.0 - t[:, None]) * angle) * a + jnp.sin(t[:, None] * angle) * b) / jnp.sin(angle)
