"""The train/test split for sources that come without one: each record's side is decided by that record alone."""

import hashlib
from collections.abc import Sequence

import numpy as np

from efsgd_jax.errors import UserError

SPLIT_KEY = b"efsgd_jax train/test split 1\0"


def record_hash(*content: bytes) -> bytes:
    """SHA-256 of a public constant and of a record as it was stored. Private, like the record."""
    digest = hashlib.sha256(SPLIT_KEY)
    for part in content:
        digest.update(part)
    return digest.digest()


def array_hashes(images: np.ndarray) -> list[bytes]:
    """The hash of each row with its shape: of its numbers in one type, since one wider row gives all a wider type."""
    kind = f"{images.shape[1:]}\0".encode()
    return [record_hash(kind, row.astype("<f8").tobytes()) for row in images]


def split_by_record(hashes: Sequence[bytes], test_fraction: float, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Which records are trained on and which are held out.

    A record is held out if its hash, as a number from 0 to 1, is below ``test_fraction``. So adding, removing or
    changing a record moves no other one, and equal images are on one side. Nothing else plays a role: neither the
    label, nor the place in the source, nor how images are resized.

    Args:
      hashes: see ``record_hash``.
      test_fraction: the chance of each record to be held out.
      where: the source, for the error.

    Returns:
      Two sorted int arrays, disjoint, together ``0..len(hashes) - 1``.

    Raises:
      UserError: one of the two is empty.
    """
    held_out = np.array([int.from_bytes(h[:8], "big") / 2**64 < test_fraction for h in hashes], bool)
    for empty, part in ((held_out.all(), "training"), (not held_out.any(), "test")):
        if empty:
            raise UserError(
                f"{where}: of {len(hashes)} images none falls into the {part} part with test_fraction={test_fraction}; "
                "add images, change --config.data.test_fraction, or supply a test part of your own"
            )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
