"""Detection of files that are reached twice by links.

A file must be one record: if it were read twice, it would count as two records, and be protected as two.
"""

from pathlib import Path

from efsgd_jax.errors import UserError


class Seen:
    """The files and directories that were checked so far, with their locations on the disk."""

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
