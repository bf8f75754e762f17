"""The key of anonymised images: the codes of the originals, from which their generator restores them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic
from efsgd_jax.protect.latent import Latent


class RestoringKey(NamedTuple):
    """What restores the originals of anonymised images, in the order of ``samples.npz``. Private.

    Attributes:
      codes: the originals' codes, float32 ``[N, d]``.
      classes: the names of their classes, str ``[N]``.
    """

    codes: np.ndarray
    classes: np.ndarray


def check_key_file(path: str | Path, out: str | Path) -> None:
    """Checks that a new key may be written to ``path``, outside of ``out``, which is to be given away.

    Raises:
      UserError: the file exists, or is ``out``, lies in it, or would hold it.
    """
    target = Path(path).expanduser().absolute()
    if target.exists():
        raise UserError(f"{path} exists; name a new file for the key")
    directory, key = Path(out).expanduser().absolute().resolve(), target.resolve()
    if key == directory or key in directory.parents:
        raise UserError(f"the key {path} is a file, and {out} would be the same place or lie in it; name another one")
    if directory in key.parents:
        raise UserError(f"the key {path} would lie in {out}, beside the images that it restores; name another place")


def write_key(path: str | Path, key: RestoringKey) -> None:
    """Writes a key to a new ``.npz`` file that only its owner can read.

    Raises:
      UserError: the file cannot be written.
    """
    with atomic(Path(path).expanduser(), private=True) as temporary, temporary.open("wb") as file:
        np.savez(file, codes=key.codes, classes=key.classes)


def read_key(path: str | Path) -> RestoringKey:
    """Reads what ``write_key`` wrote.

    Raises:
      UserError: the file is not there, or is no key.
    """
    try:
        with np.load(Path(path).expanduser()) as arrays:
            return RestoringKey(arrays["codes"], arrays["classes"])
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path} ({error}); name the file that --key wrote") from error


def restore(key: RestoringKey, latent: Latent) -> np.ndarray:
    """The originals, as far as the generator can show them: uint8 ``[N, S, S, C]``.

    Raises:
      UserError: the key is for another generator.

    Examples:
      >>> from efsgd_jax.data import ImageSpec
      >>> grey = Latent(None, lambda u, y: u[:, :, None, None], 1, ImageSpec(1, 1, 2), ("a", "b"))
      >>> restore(RestoringKey(np.array([[0.0], [1.0]]), np.array(["a", "b"])), grey).ravel()
      array([  0, 255], dtype=uint8)
    """
    numbers = {name: number for number, name in enumerate(latent.class_names)}
    known = all(name in numbers for name in key.classes)
    if not known or key.codes.shape != (len(key.classes), latent.size):
        raise UserError(
            f"the key has codes of shape {key.codes.shape}, and the generator has {latent.size} numbers for each image "
            f"of the classes {', '.join(numbers)}; name the run by which the images were anonymised"
        )
    return latent.images(key.codes, np.array([numbers[name] for name in key.classes]))
