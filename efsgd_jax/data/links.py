"""One file must be one record: what is reached twice by links would count, and be protected, as two."""

from pathlib import Path

from efsgd_jax.errors import UserError


class Seen:
    """The files and directories that were met so far, each with the place it lies at on the disk."""

    def __init__(self) -> None:
        self.places: dict[tuple[int, int], Path] = {}

    def check(self, path: Path) -> None:
        """Notes ``path``.

        Raises:
          UserError: it is one that was met before, by a soft or a hard link.
        """
        status = path.stat()
        place = (status.st_dev, status.st_ino)
        if place in self.places:
            raise UserError(f"{path} is {self.places[place]} again, by a link; remove the link")
        self.places[place] = path
