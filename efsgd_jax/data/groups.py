"""Groups: which person, or other unit, each image is of."""

from typing import NamedTuple

import numpy as np

from efsgd_jax.data.split import array_hashes, record_hash, split_by_record
from efsgd_jax.errors import UserError

# The value of config.data.groups for which the directory above an image names its group.
BY_FOLDER = "folder"
# Names of the column that has the groups in the lists of others; in lower case.
GROUP_COLUMNS = (
    "group", "person", "patient", "subject", "identity", "person_id", "patient_id", "subject_id", "group_id",
)  # fmt: skip


class UnitRows(NamedTuple):
    """The images of each group, as indices.

    Attributes:
      rows: int32 ``[G, m]``, indices of training images; a group with fewer than m images repeats its first one.
      present: bool ``[G, m]``, False for repetitions.
    """

    rows: np.ndarray
    present: np.ndarray


def split_by_group(groups: np.ndarray, test_fraction: float, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Divides images into a training and a test part, such that a group is on one side with all its images.

    The name of a group decides about its side, as the bytes of a single image do in ``split_by_record``.

    Args:
      groups: the name of each image's group, text ``[N]``.
      test_fraction: probability of each group to be in the test part.
      where: the source, for the error.

    Raises:
      UserError: a name is empty, or one of the two parts is empty.
    """
    empty = np.flatnonzero(groups == "")
    if len(empty):
        raise UserError(f"{where}: the image at index {empty[0]} has no group; name the person that it is of")
    return split_by_record([record_hash(b"group\0", str(name).encode()) for name in groups], test_fraction, where)


def numbered(groups: np.ndarray) -> np.ndarray:
    """The number of each image's group, int32 ``[N]``, in the sorted order of their names."""
    return np.unique(groups, return_inverse=True)[1].astype(np.int32)


def unit_rows(groups: np.ndarray, images: np.ndarray, most: int) -> UnitRows:
    """At most ``most`` images of each group.

    Of a group with more images, those with the smallest hashes are taken, so that the choice depends on the group's own
    images only.

    Args:
      groups: the number of each image's group, int ``[N]``.
      images: uint8 ``[N, ...]``.
      most: m, at least 1.
    """
    hashes = array_hashes(images)
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(i)
    chosen = [sorted(members[group], key=lambda i: hashes[i])[:most] for group in sorted(members)]
    rows = np.array([[*found, *[found[0]] * (most - len(found))] for found in chosen], np.int32)
    present = np.array([[i < len(found) for i in range(most)] for found in chosen], bool)
    return UnitRows(rows, present)
