"""The train/test split for sources without a test part: the part of each record depends on that record alone."""

import hashlib
from collections.abc import Sequence

import numpy as np

from efsgd_jax.errors import UserError

# Prefix of what is hashed to decide whether a record is held out. It must not change: the split would be another one.
SPLIT_KEY = b"efsgd_jax train/test split 1\0"


def record_hash(*content: bytes) -> bytes:
    """SHA-256 of a public constant and of the stored bytes of a record. It is private, like the record."""
    digest = hashlib.sha256(SPLIT_KEY)
    for part in content:
        digest.update(part)
    return digest.digest()


def array_hashes(images: np.ndarray) -> list[bytes]:
    """The hash of each row's shape and values.

    All values are hashed as float64, since one row that needs a wider type can change the type of the whole array.
    """
    kind = f"{images.shape[1:]}\0".encode()
    return [record_hash(kind, row.astype("<f8").tobytes()) for row in images]


def place_hashes(count: int) -> list[bytes]:
    """A hash of each record's place in the source, for where pixels must not decide in which part a record is.

    Who is in the data, and in which order, is then public.
    """
    return [record_hash(b"place\0", str(i).encode()) for i in range(count)]


def split_by_record(hashes: Sequence[bytes], test_fraction: float, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Divides records into a training and a test part.

    A record is in the test part if the first 64 bits of its hash, as a fraction in [0, 1), are below ``test_fraction``.
    SHA-256 takes the place of a random number, so that this has the probability ``test_fraction``. Adding, removing or
    changing a record does not change the part of any other record, and equal images are in the same part.
    The split does not depend on labels, on the order of the records, or on how images are resized.

    Args:
      hashes: the hash of each record; see ``record_hash``.
      test_fraction: probability of each record to be in the test part.
      where: the source, for the error.

    Returns:
      The indices of the training part and those of the test part: two sorted, disjoint int arrays, which together are
      ``0..len(hashes) - 1``.

    Raises:
      UserError: one of the two parts is empty.
    """
    held_out = np.array([int.from_bytes(h[:8], "big") / 2**64 < test_fraction for h in hashes], bool)
    for empty, part in ((held_out.all(), "training"), (not held_out.any(), "test")):
        if empty:
            raise UserError(
                f"{where}: of {len(hashes)} images none falls into the {part} part with test_fraction={test_fraction}; "
                "add images, change --config.data.test_fraction, or supply a test part of your own"
            )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
