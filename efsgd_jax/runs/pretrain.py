"""``pretrain``: trains an autoencoder on public images, whose file serves any number of private runs."""

import hashlib
import math
from pathlib import Path
from typing import Any

import flax.serialization
import jax
from ml_collections import ConfigDict

from efsgd_jax.config import validate
from efsgd_jax.data import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.public_autoencoder import autoencoder_phase, planned_autoencoder
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.loop import steps_of
from efsgd_jax.training.progress import say
from efsgd_jax.training.public_data import load_public
from efsgd_jax.training.update import Inputs

# Number of steps between two states that are kept, from which the same command continues.
KEPT_EVERY = 200


def pretrain(config: ConfigDict, out: str | Path, *, progress: bool = True) -> str:
    """Trains the autoencoder of a configuration on its public images, and writes it to a file.

    Every 200 steps the state is written to ``OUT.partial``; the same call continues from there if it was stopped.

    Args:
      config: a configuration with ``method.autoencoder_width``, ``public.path``, ``data.image_size`` and
        ``data.channels``. Other keys of ``config.data`` are not used: private data is not read.
      out: a new file, for ``config.public.weights``.
      progress: whether to show progress on standard error.

    Returns:
      The SHA-256 of the file, which privacy reports state.

    Raises:
      UserError: the configuration or the public images cannot be used, or the file exists or cannot be written.

    Formal guarantees:
      No private data is read, so that the file costs no epsilon in any run that uses it. The public images have no
      protection.

    Examples:
      >>> from efsgd_jax import default_config
      >>> config = default_config("gaussian_mixture")
      >>> config.data.update(image_size=32, channels=3)
      >>> config.public.path = "public_images.zip"
      >>> config.method.autoencoder_width = 64
      >>> sha256 = pretrain(config, "public.msgpack")  # doctest: +SKIP
    """
    validate(config)
    target, d = Path(out).expanduser(), config.data
    if target.exists():
        raise UserError(f"{target} exists; name a new file")
    if not planned_autoencoder(config) or not config.public.path:
        raise UserError(
            "nothing to pre-train: set --config.public.path to public images and --config.method.autoencoder_width, "
            "such as 64, of gaussian_mixture or efsgd_mixture; leave --config.public.weights out"
        )
    if not (d.image_size and d.channels):
        raise UserError("pre-training needs the private images' size: set --config.data.image_size and .channels")
    (plan,), spec = planned_autoencoder(config), ImageSpec(d.image_size, d.channels, 2)
    phase = autoencoder_phase(spec, method_named(config.method.name).read(config.method.to_dict()), plan)
    say("reading the public images", shown=progress)
    public = load_public(config, spec)
    assert public is not None
    identity = f"{public.description}; {spec}; {plan}"
    partial = target.with_name(f"{target.name}.partial")
    # Nothing of this is secret: a fixed key makes the file a function of the images and of the configuration.
    key = jax.random.key(0)
    state = jax.jit(phase.init, compiler_options=compiler_options())(key, {})
    step, state = _restored(partial, identity, state)
    inputs = Inputs(key, key, None, {}, jax.device_put(public.content))
    rows = steps_of(
        phase, state, inputs, start=step, every=20, boundaries=[KEPT_EVERY], spent=lambda step: math.nan, mesh=None,
        shown=progress,
    )  # fmt: skip
    for row in rows:
        state = row.state
        if row.step % KEPT_EVERY == 0:
            with atomic(partial) as temporary:
                kept = {"identity": identity, "step": row.step, "state": jax.device_get(state)}
                temporary.write_bytes(flax.serialization.to_bytes(kept))
    content = flax.serialization.to_bytes(jax.device_get(phase.release(state)))
    with atomic(target) as temporary:
        temporary.write_bytes(content)
    partial.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def _restored(partial: Path, identity: str, state: Any) -> tuple[int, Any]:
    """The step and the state in ``partial``, if it is of the same pre-training; 0 and ``state`` without such a file."""
    if not partial.is_file():
        return 0, state
    try:
        found = flax.serialization.from_bytes({"identity": "", "step": 0, "state": state}, partial.read_bytes())
    except Exception as error:  # msgpack and Flax raise many kinds of exceptions for a damaged file
        raise UserError(f"{partial} cannot be read ({type(error).__name__}); delete it to start again") from error
    if found["identity"] != identity:
        raise UserError(f"{partial} is of other images or another configuration; delete it, or name another --out")
    return int(found["step"]), jax.tree.map(jax.numpy.asarray, found["state"])
