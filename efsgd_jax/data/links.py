"""Detection of files that are reached twice by links.

The privacy guarantee is for one record. If a file were read twice, it would be two records, and the guarantee for the
image in it would be weaker, as for a group of two records.
"""

from pathlib import Path

from efsgd_jax.errors import UserError


class Seen:
    """The files and directories that were checked so far, identified by their device and inode numbers."""

    def __init__(self) -> None:
        self.places: dict[tuple[int, int], Path] = {}

    def check(self, path: Path) -> None:
        """Adds ``path`` to the checked files and directories.

        Raises:
          UserError: by a symbolic or hard link, it is the same as one that was checked before.
        """
        status = path.stat()
        place = (status.st_dev, status.st_ino)
        if place in self.places:
            raise UserError(f"{path} is {self.places[place]} again, by a link; remove the link")
        self.places[place] = path
