"""Public declarations of a data set's owner: the range of its values and its classes."""

import math

import numpy as np

from efsgd_jax.data.validate import one_line
from efsgd_jax.errors import UserError

# Largest number of classes that can be declared.
MAX_CLASSES = 100_000


def parse_value_range(text: str) -> tuple[float, float] | None:
    """Parses ``config.data.value_range`` into two numbers; "" gives None, for the default range of the values' type.

    Raises:
      UserError: ``text`` is not two finite numbers with two dots between them, the smaller one first.
    """
    if not text:
        return None
    low, dots, high = text.partition("..")
    try:
        values = float(low), float(high)
    except ValueError:
        values = math.nan, math.nan
    if not (dots and all(map(math.isfinite, values)) and values[0] < values[1]):
        raise UserError(
            f"value_range is {text!r}; set --config.data.value_range to two numbers such as 0..255 or -1..1"
        )
    return values


def parse_region(text: str) -> tuple[int, int, int, int] | None:
    """Parses ``config.privacy.region``: top, left, height and width of a rectangle of pixels; "" gives None.

    Raises:
      UserError: ``text`` is not four whole numbers with commas between them, the last two above 0.

    Examples:
      >>> parse_region("9,9,14,14")
      (9, 9, 14, 14)
    """
    if not text:
        return None
    numbers = [n.strip() for n in text.split(",")]
    if len(numbers) == 4 and all(n.isascii() and n.isdigit() and len(n) < 6 for n in numbers):
        top, left, height, width = map(int, numbers)
        if height and width:
            return top, left, height, width
    raise UserError(
        f"region is {one_line(text)!r}; set --config.privacy.region to top,left,height,width in pixels, the last two "
        "above 0, such as 9,9,14,14"
    )


def parse_classes(text: str) -> int | tuple[str, ...] | None:
    """Parses ``config.data.classes`` into a number of classes or their names; "" gives None: nothing is declared.

    Raises:
      UserError: a number of classes below 1 or above ``MAX_CLASSES``, or names that are empty or repeated.
    """
    if not text:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if len(names) == 1 and names[0].isascii() and names[0].isdigit():
        count = int(names[0][:9])
        if 1 <= count <= MAX_CLASSES:
            return count
    elif 1 <= len(names) <= MAX_CLASSES and all(names) and len(set(names)) == len(names):
        return names
    raise UserError(
        f"classes is {one_line(text)!r}; set --config.data.classes to a number from 1 to {MAX_CLASSES}, such as 10, or "
        "to at most as many different names with commas between them, such as healthy,affected; 1 is for no labels"
    )


def only_class(declared: int | tuple[str, ...] | None) -> str:
    """The name of the class if a single one is declared, so that labels are not read; else "".

    Examples:
      >>> only_class(1), only_class(("face",)), only_class(10), only_class(None)
      ('image', 'face', '', '')
    """
    if isinstance(declared, tuple):
        return declared[0] if len(declared) == 1 else ""
    return "image" if declared == 1 else ""


def declared_classes(
    declared: int | tuple[str, ...] | None, own: tuple[str, ...] | None, where: str
) -> tuple[str, ...] | None:
    """The names of the classes, from what was declared and from the names that the source has.

    Args:
      declared: the declared classes, as ``parse_classes`` returns them.
      own: the names that the source has, in the order of its labels; None if its labels have no names.
      where: the source, for the error.

    Returns:
      One name for each label; None if nothing was declared and the source has no names.

    Raises:
      UserError: the declared number of classes differs from that of the source.
    """
    if declared is None:
        return own
    count = declared if isinstance(declared, int) else len(declared)
    if own is not None and len(own) != count:
        raise UserError(
            f"{where} has {len(own)} classes ({_some(own)}), but {count} are declared; change --config.data.classes"
        )
    if isinstance(declared, tuple):
        return declared
    return tuple(str(i) for i in range(count)) if own is None else own


def declared_folders(declared: int | tuple[str, ...] | None, folders: list[str], where: str) -> tuple[str, ...]:
    """The names of the classes of a source whose labels are the names of folders.

    Args:
      declared: the declared classes, as ``parse_classes`` returns them. A declared name without a folder is a class
        without an image.
      folders: the names of the folders that were found, in sorted order.
      where: the source, for the error.

    Raises:
      UserError: there is a folder whose name was not declared, or a number of classes was declared that is not the
        number of folders.
    """
    if only_class(declared):  # the folders are not classes
        return (only_class(declared),)
    if isinstance(declared, tuple):
        unknown = [name for name in folders if name not in declared]
        if unknown:
            raise UserError(
                f"{where} has the class folder {unknown[0]!r}, which is not among the declared classes "
                f"({_some(declared)}); remove the folder or add its name to --config.data.classes"
            )
        return declared
    return declared_classes(declared, tuple(folders), where) or ()


def label_numbers(labels: np.ndarray, names: tuple[str, ...] | None, what: str, where: str) -> np.ndarray:
    """The position of each text label ``[N]`` or ``[N, 1]`` among the names; labels that are not text stay as they are.

    Args:
      labels: the labels.
      names: the declared names; None if none were declared.
      what: name of the labels, for errors.
      where: the source, for errors.

    Raises:
      UserError: no names were declared, or a label is not among them.

    Examples:
      >>> label_numbers(np.array(["b", "a", "b"]), ("a", "b"), "labels", "here")
      array([1, 0, 1])
    """
    if labels.dtype.kind != "U":
        return labels
    if names is None:
        found = sorted(set(map(str, labels.flat)))
        count = len(found) if set(found) == set(map(str, range(len(found)))) else 0
        raise UserError(
            f"{where}: the classes are public, and have to be declared: set --config.data.classes="
            f"{count or one_line(','.join(found))}, and add any class that has no image"
        )
    numbers = {name: i for i, name in enumerate(names)}
    unknown = next(((i, str(label)) for i, label in enumerate(labels.flat) if str(label) not in numbers), None)
    if unknown:
        raise UserError(
            f"{where}: the {what} contain {one_line(unknown[1])!r} at index {unknown[0]}, which is not among the "
            f"declared classes ({_some(names)}); repair that label or add it to --config.data.classes"
        )
    return np.array([numbers[str(label)] for label in labels.flat], np.int64)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
