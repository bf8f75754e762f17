"""What the released generator draws: samples of each class, and walks from one image to another."""

from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.data import to_uint8
from efsgd_jax.models.critic import sample_latent
from efsgd_jax.reports.html import Markup, join, paragraph, section, tag
from efsgd_jax.reports.images import picture, strip
from efsgd_jax.reports.material import Released
from efsgd_jax.runs.sampling import sample
from efsgd_jax.synthesizers import method_named

MAX_CLASSES = 20
SAMPLES, COLUMNS = 20, 10
FRAMES = 10
WIDTH = 500


def samples_section(released: Released) -> Markup:
    """A grid for each class, from a public seed.

    Formal guarantees:
      Post-processing of the released generator.
    """
    names = released.class_names
    drawn = sample(released.directory.root, SAMPLES * len(names), seed=0)
    figures = [
        _figure(name, strip(drawn.images[drawn.labels == c], COLUMNS), f"{SAMPLES} generated images of class {name}")
        for c, name in enumerate(names[:MAX_CLASSES])
    ]
    return section(
        "samples",
        "Samples",
        paragraph("Drawn from the released generator with a public seed, not chosen."),
        _first_classes(names),
        tag("div", *figures, class_="classes"),
    )


def walks_section(released: Released) -> dict[str, Markup]:
    """A walk through the latent space for each class, by its title; nothing if the method has no such space."""
    names = released.class_names
    if method_named(released.config["method"]["name"]).make_generator is None:
        return {}
    frames = walks(released, min(len(names), MAX_CLASSES))
    figures = [
        _figure(
            name, strip(frames[c]), f"{FRAMES} generated images of class {name}, each a little different from the last"
        )
        for c, name in enumerate(names[:MAX_CLASSES])
    ]
    text = (
        "From one latent point to another, all else held fixed. Images that change little by little say that the "
        "generator has learned a class, rather than a list of pictures."
    )
    figures_of_classes = tag("div", *figures, class_="classes")
    return {
        "Interpolations": section("walks", "Interpolations", paragraph(text), _first_classes(names), figures_of_classes)
    }


def walks(released: Released, num_classes: int) -> np.ndarray:
    """Images between two latent points of each class; uint8 ``[num_classes, FRAMES, S, S, C]``.

    The points are drawn from the method's prior with a public key; the injected noise is the same for all frames.

    Formal guarantees:
      Post-processing of the released generator.
    """
    settings = released.config["method"]
    method = method_named(settings["name"])
    hp = method.read(settings)
    assert method.make_generator is not None  # ``walks_section`` asks
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
    """Points of the same length as those of a normal prior, which a straight line between two is not."""
    cosine = jnp.vdot(a, b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-12)
    angle = jnp.arccos(jnp.clip(cosine, -0.9999, 0.9999))
    return (jnp.sin((1.0 - t[:, None]) * angle) * a + jnp.sin(t[:, None] * angle) * b) / jnp.sin(angle)


def _figure(name: str, pixels: np.ndarray, alt: str) -> Markup:
    return tag("figure", tag("figcaption", name), picture(pixels, alt, width=WIDTH))


def _first_classes(names: tuple[str, ...]) -> Markup:
    if len(names) <= MAX_CLASSES:
        return join()
    return paragraph(f"The first {MAX_CLASSES} of {len(names)} classes.", class_="note")
