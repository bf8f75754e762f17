"""What an archive may do to the machine that reads it: nothing is extracted, and nothing grows without measure."""

from efsgd_jax.errors import UserError

GIB = 2**30
# Images compress to a tenth, and a blank one to a hundredth, of their size; an archive that is made to fill a machine's
# memory to a thousandth.
MAX_RATIO = 200
MAX_MEMBER = GIB // 4


def check_expansion(compressed: int, expanded: int, where: str) -> None:
    """Refuses what is larger than a gibibyte and compressed as no set of images is.

    Args:
      compressed: bytes as they lie on the disk.
      expanded: bytes as they would lie in memory.
      where: the file, for the error.

    Raises:
      UserError: it is such a file.
    """
    if expanded > GIB and expanded > MAX_RATIO * compressed:
        raise UserError(
            f"{where} holds {expanded / GIB:.1f} GiB in {compressed / 2**20:.1f} MiB, as no images do; it was made to "
            "fill a machine's memory, or is damaged; supply another file"
        )


def check_member(size: int, where: str) -> None:
    """Refuses a single image file of more than 256 MiB, before it is read.

    Raises:
      UserError: it is larger.
    """
    if size > MAX_MEMBER:
        raise UserError(f"{where} has {size / 2**20:.0f} MiB, too much for one image; repair or remove the file")


def check_name(name: str, where: str) -> None:
    """Refuses a name that points out of its archive or directory, or that is no text.

    Raises:
      UserError: it does.
    """
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith("/") or "\0" in name:
        raise UserError(f"{where} names {name!r}, a place outside of it; nothing is read from there: make it again")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where} has the name {name!a}, which is not UTF-8; rename it") from error
