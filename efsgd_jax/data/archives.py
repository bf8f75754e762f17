"""Checks that protect against malicious or damaged archives: expansion in memory, large members, and bad names."""

from efsgd_jax.errors import UserError

GIB = 2**30
# Largest ratio of expanded to compressed size. Images compress to about a tenth of their size and blank images to a
# hundredth; an archive that was made to fill a machine's memory can be compressed to a thousandth.
MAX_RATIO = 200
# Largest size in bytes of a single image file.
MAX_MEMBER = GIB // 4


def check_expansion(compressed: int, expanded: int, where: str) -> None:
    """Checks that a file of more than a gibibyte in memory is not compressed more than images can be.

    Args:
      compressed: size on the disk, in bytes.
      expanded: size in memory, in bytes.
      where: name of the file, for the error.

    Raises:
      UserError: the file is larger than a gibibyte in memory and more than ``MAX_RATIO`` times its size on the disk.
    """
    if expanded > GIB and expanded > MAX_RATIO * compressed:
        raise UserError(
            f"{where} holds {expanded / GIB:.1f} GiB in {compressed / 2**20:.1f} MiB, as no images do; it was made to "
            "fill a machine's memory, or is damaged; supply another file"
        )


def check_member(size: int, where: str) -> None:
    """Checks the size of one image file before it is read: at most 256 MiB.

    Raises:
      UserError: the file is larger.
    """
    if size > MAX_MEMBER:
        raise UserError(f"{where} has {size / 2**20:.0f} MiB, too much for one image; repair or remove the file")


def check_name(name: str, where: str) -> None:
    """Checks a name in an archive or a list.

    Raises:
      UserError: the name refers to a place outside of the archive or directory, or is not valid UTF-8.
    """
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith("/") or "\0" in name:
        raise UserError(
            f"{where} has the name {name!r}, a place outside of it, which is not read: make the archive again"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where} has the name {name!a}, which is not UTF-8; rename it") from error
