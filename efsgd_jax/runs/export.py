"""``export``: writes a trained generator for use without this library, as a StableHLO program and as safetensors."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic, check_new_directory, read_json, write_json, write_text
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.runs.released import ReleasedGenerator, released_generator
from efsgd_jax.runs.workdir import Workdir

# Platforms for which the program is exported.
PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS, CARD, USAGE = "generator.stablehlo", "generator.safetensors", "generator.json", "README.md"

TEXT = """# A generator of synthetic images

{statement}

`{program}` is a program with its weights, for `jax.export`. It needs JAX {jax} or a later one (`pip install jax
flatbuffers`) and nothing else:

```python
from pathlib import Path

import jax
import jax.numpy as jnp

generate = jax.export.deserialize(bytearray(Path("{program}").read_bytes())).call
seed = jnp.array([0, 1], jnp.uint32)  # any two numbers; the same ones give the same images
labels = jnp.zeros({batch}, jnp.int32)  # {classes}
images = generate(seed, labels)  # float32 [{batch}, {shape}] in [-1, 1]
pixels = jnp.round((images + 1) * 127.5).astype(jnp.uint8)
```

`{weights}` has the weights alone, for any library that reads safetensors; `{card}` says what they belong to.
"""


class Exported(NamedTuple):
    """Paths of the files that ``export`` wrote."""

    program: Path
    weights: Path
    card: Path
    usage: Path


def export(workdir: str | Path, out: str | Path, *, batch_size: int = 100) -> Exported:
    """Writes a finished run's generator for use without this library.

    The files are ``generator.stablehlo``, ``generator.safetensors`` (the weights), ``generator.json`` (configuration,
    classes, privacy report) and ``README.md``. ``generator.stablehlo`` is a program with its weights, for
    ``jax.export``. Its inputs are a seed, uint32 ``[2]``, and labels, int32 ``[batch_size]``; its output is images,
    float32 ``[batch_size, S, S, C]`` in [-1, 1].

    Args:
      workdir: the directory of a finished run; only its ``release/`` is read.
      out: a new or empty directory for the files.
      batch_size: number of images that one call of the program generates.

    Raises:
      UserError: the run is not finished or damaged, ``out`` is not empty, or ``batch_size`` is not positive.

    Formal guarantees:
      Post-processing of the released generator. It spends nothing beyond what training spent, which is stated in
      ``generator.json``.
    """
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1")
    directory, target = Workdir(workdir), Path(out).expanduser()
    released = released_generator(directory)
    check_new_directory(target, "export")
    privacy = read_json(directory.privacy_json)
    files = Exported(*(target / name for name in (PROGRAM, WEIGHTS, CARD, USAGE)))
    for path, content in (
        (files.program, _program(released, batch_size)),
        (files.weights, save(_flat(released.params), {"privacy": json.dumps(privacy)})),
    ):
        with atomic(path) as temporary:
            temporary.write_bytes(content)
    card = {"classes": list(released.class_names), "batch_size": batch_size, "privacy": privacy}
    write_json(files.card, {**card, **read_json(directory.config), "generator_sha256": directory.generator_sha256})
    write_text(files.usage, _usage(released, batch_size, privacy))
    return files


def _program(released: ReleasedGenerator, batch_size: int) -> bytes:
    params = jax.tree.map(jnp.asarray, released.params)

    def generate(seed: jax.Array, labels: jax.Array) -> jax.Array:
        return released.generate(params, jax.random.wrap_key_data(seed, impl="threefry2x32"), labels)

    shapes = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return bytes(jax.export.export(jax.jit(generate), platforms=PLATFORMS)(*shapes).serialize())


def _flat(params: Any) -> dict[str, np.ndarray]:
    """The weights by their path in the pytree, such as ``params.Dense_0.kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.ascontiguousarray(x) for path, x in leaves}


def _usage(released: ReleasedGenerator, batch_size: int, privacy: dict[str, Any]) -> str:
    statement = f"NOT PRIVATE: {privacy.get('reason_for_no_guarantee', '')}"
    if privacy["guarantee"]:
        statement = (
            f"Its training was ({format_epsilon(privacy['epsilon'])}, {privacy['delta']:g})-differentially private for "
            f"one image; drawing images costs nothing more. `{CARD}` has the whole report."
        )
    names = released.class_names
    classes = ", ".join(f"{i}: {name}" for i, name in enumerate(names[:12])) + (", ..." if len(names) > 12 else "")
    return TEXT.format(
        statement=statement, program=PROGRAM, weights=WEIGHTS, card=CARD, jax=jax.__version__, batch=batch_size,
        classes=classes, shape=", ".join(map(str, released.spec.shape)),
    )  # fmt: skip
