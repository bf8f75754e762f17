"""Reads the generator of a finished run from its ``release/``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp

from efsgd_jax.data import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers import method_named


class ReleasedGenerator(NamedTuple):
    """A released generator.

    Attributes:
      generate: ``generate(params, key, labels) -> images``; see ``Method.make_generate``.
      params: the released parameters.
      spec: shape of the images and number of classes.
      class_names: names of the classes, in the order of the labels.
      log_likelihood: ``log_likelihood(params, images, labels)``, if the method has one; see
        ``Method.make_log_likelihood``.
    """

    generate: Callable[[Any, jax.Array, jax.Array], jax.Array]
    params: Any
    spec: ImageSpec
    class_names: tuple[str, ...]
    log_likelihood: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None


def released_generator(directory: Workdir) -> ReleasedGenerator:
    """Reads the generator and its configuration from ``release/``; nothing else of the run is read.

    Raises:
      UserError: the run is not finished, or a file is damaged.
    """
    if not directory.finished:
        raise UserError(f"{directory.root} holds no finished run ({directory.generator} is missing); train it first")
    release = read_json(directory.config)
    shape, settings = release["spec"], release["config"]["method"]
    names = tuple(shape["class_names"])
    spec = ImageSpec(shape["image_size"], shape["channels"], len(names))
    method = method_named(settings["name"])
    hp = method.read(settings)
    generate = method.make_generate(spec, hp)
    likelihood = method.make_log_likelihood(spec, hp) if method.make_log_likelihood else None
    try:
        params = flax.serialization.msgpack_restore(directory.generator.read_bytes())
        jax.eval_shape(generate, params, jax.random.key(0), jnp.zeros(1, jnp.int32))
    except Exception as error:  # msgpack and Flax raise many kinds of exceptions for a damaged file
        raise UserError(
            f"cannot read {directory.generator} ({type(error).__name__}); it is damaged or of another configuration"
        ) from error
    return ReleasedGenerator(generate, params, spec, names, likelihood)
