"""The source ``celeba``: CelebA in its own file format, with aligned faces, binary attributes and a partition."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from efsgd_jax.data.archives import check_name
from efsgd_jax.data.dataset import Empty, in_memory
from efsgd_jax.data.decode import decode_parts, warn_of_conversion
from efsgd_jax.data.links import Seen
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.scale import BYTES, Range
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

WHAT = "the directory that holds img_align_celeba/, list_attr_celeba.txt and list_eval_partition.txt (or .csv)"
IDENTITIES = "identity_CelebA.txt"
DEFAULT_ATTRIBUTE = "Male"
DEFAULT_SIZE = 32
# The numbers of the parts in list_eval_partition.txt.
TRAIN, VALIDATION, TEST = 0, 1, 2


def read_celeba(
    path: Path | str | None,
    attribute: str | None,
    image_size: int | None,
    channels: int | None,
    value_range: Range | None = None,
    groups: str = "",
    empty: Empty = in_memory,
) -> RawDataset:
    """Reads CelebA's official training partition (0) and test partition (2), but not the validation partition (1).

    The lists may also lie in ``Anno/`` and ``Eval/`` and the faces in ``Img/img_align_celeba/``, as in the official
    archive, and may be .csv files, as on Kaggle, where the faces lie in ``img_align_celeba/img_align_celeba/``. An
    aligned face of 178x218 is cropped to its central 178x178 and resized with antialiasing.

    Args:
      path: the root directory.
      attribute: name of the attribute that is the label, which is 1 if the attribute is present; default "Male".
      image_size: height and width of the images; default 32.
      channels: 1 or 3; None means 3.
      value_range: the range of the numbers in the image files; None for the full range of their bits.
      groups: CelebA's list of identities, ``identity_CelebA.txt``, by its name in the directory or its own path; "" for
        no groups.
      empty: what allocates the array of all images.

    Raises:
      UserError: a list or a face is missing or malformed, two faces are links to the same file, or the attribute is
        unknown.
    """
    root = check_path(path, "celeba", WHAT)
    faces = _find(root, "Img", ("img_align_celeba",), Path.is_dir)
    if (faces / "img_align_celeba").is_dir():
        faces = faces / "img_align_celeba"
    partition_file = _find(root, "Eval", ("list_eval_partition.txt", "list_eval_partition.csv"), Path.is_file)
    attribute_file = _find(root, "Anno", ("list_attr_celeba.txt", "list_attr_celeba.csv"), Path.is_file)
    wanted = attribute or DEFAULT_ATTRIBUTE
    labels = read_attribute(attribute_file, wanted)
    partition = read_partition(partition_file)
    train = [name for name, part in partition.items() if part == TRAIN]
    test = [name for name, part in partition.items() if part == TEST]
    for names, number in ((train, TRAIN), (test, TEST)):
        if not names:
            raise UserError(f"{partition_file} lists no image with partition {number}; use the official list")
    names = train + test
    for name in names:
        check_name(name, str(partition_file))
        if name not in labels:
            raise UserError(
                f"{attribute_file} has no line for {name}, which {partition_file} lists; use the official lists"
            )
    seen = Seen()
    for name in names:
        if (faces / name).is_file():  # a missing file is reported when it is read
            seen.check(faces / name)
    target = channels or 3
    images, test_images = decode_parts(
        train,
        test,
        lambda name: (faces / name).read_bytes(),
        lambda name: str(faces / name),
        image_size or DEFAULT_SIZE,
        target,
        value_range,
        empty,
    )
    source = f"celeba:{root} ({wanted})"
    warn_of_conversion(images.gray, target, channels, source)
    identities = read_identities(_identity_file(root, groups)) if groups else {}
    without = next((name for name in names if groups and name not in identities), None)
    if without:
        raise UserError(f"{groups} has no line for {without}, which {partition_file} lists; use the official list")
    known = next((str(root / place) for place in ("", "Anno") if (root / place / IDENTITIES).is_file()), "")
    all_labels = np.array([labels[name] for name in names], np.int64)
    num_train = len(train)
    return RawDataset(
        train_images=images.pixels,
        train_labels=all_labels[:num_train],
        test_images=test_images,
        test_labels=all_labels[num_train:],
        class_names=(f"not {wanted}", wanted),
        source=source,
        # The declared range was applied when the files were decoded, and must not be applied again.
        value_range=BYTES if value_range else None,
        hashes=images.hashes,
        groups=np.array([identities[name] for name in names]) if groups else None,
        known_groups=f"{IDENTITIES} in {known}" if known and not groups else "",
    )


def _identity_file(root: Path, groups: str) -> Path:
    inside = next((path for place in ("", "Anno") if (path := root / place / groups).is_file()), None)
    return inside or check_path(groups, "celeba", IDENTITIES, key="data.groups")


def read_identities(file: Path) -> dict[str, str]:
    """Reads CelebA's ``identity_CelebA.txt``: a dictionary from the file name to the number of the person.

    Raises:
      UserError: the file is malformed.
    """
    identities: dict[str, str] = {}
    for number, line in enumerate(_lines(file), start=1):
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdigit() or fields[0] in identities:
            raise UserError(
                f"{file} line {number} is {one_line(line)!r}; expected a file name, once, and the number of a person"
            )
        identities[fields[0]] = fields[1]
    return identities


def read_attribute(file: Path, attribute: str) -> dict[str, int]:
    """Reads one attribute of ``list_attr_celeba``: a dictionary from the file name to 0 or 1.

    The first line of the .txt file is the number of images and the second the names of the attributes. Each further
    line is of the form ``000001.jpg -1 1 ...``. The .csv file has no number of images, and a name for its first column.

    Raises:
      UserError: the file is malformed or has no such attribute.
    """
    lines = _lines(file)
    if file.suffix == ".csv":  # brought to the form of the .txt file
        first, *rest = lines or [""]
        lines = [str(len(rest)), first.partition(",")[2].replace(",", " "), *(row.replace(",", " ") for row in rest)]
    if len(lines) < 3 or not lines[0].isdigit():
        raise UserError(f"{file} does not begin with a count and a line of attribute names; use CelebA's official list")
    names = lines[1].split()
    if attribute not in names:
        close = difflib.get_close_matches(attribute.lower(), [name.lower() for name in names], n=3, cutoff=0.5)
        suggestion = [name for candidate in close for name in names if name.lower() == candidate] or names
        raise UserError(
            f"{file} has no attribute {attribute!r}; set --config.data.attribute to one such as {', '.join(suggestion)}"
        )
    if int(lines[0]) != len(lines) - 2:
        raise UserError(f"{file} announces {lines[0]} images but lists {len(lines) - 2}; fetch the file again")
    column = 1 + names.index(attribute)
    labels = {}
    for number, line in enumerate(lines[2:], start=3):
        fields = line.split()
        if len(fields) != 1 + len(names) or fields[column] not in ("-1", "1"):
            raise UserError(
                f"{file} line {number} is {one_line(line)!r}; expected a file name and {len(names)} values -1 or 1"
            )
        if fields[0] in labels:
            raise UserError(f"{file} line {number} lists {fields[0]} a second time; use the official list")
        labels[fields[0]] = int(fields[column] == "1")
    return labels


def read_partition(file: Path) -> dict[str, int]:
    """Reads ``list_eval_partition``: a dictionary from the file name to 0 (train), 1 (validation) or 2 (test).

    The .csv file has a line of names before the others.

    Raises:
      UserError: the file is malformed.
    """
    partition = {}
    is_csv = file.suffix == ".csv"
    for number, line in enumerate(_lines(file)[is_csv:], start=1 + is_csv):
        fields = line.replace(",", " ").split() if is_csv else line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise UserError(f"{file} line {number} is {one_line(line)!r}; expected a file name and 0, 1 or 2")
        if fields[0] in partition:
            raise UserError(f"{file} line {number} lists {fields[0]} a second time; use the official list")
        partition[fields[0]] = int(fields[1])
    return partition


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").strip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file} ({one_line(error)}); fetch the file again") from error


def _find(root: Path, folder: str, names: Sequence[str], is_there: Callable[[Path], bool]) -> Path:
    """The path of one of ``names`` in ``root`` or, as in the official archive, in its ``folder``."""
    for candidate in [place / name for name in names for place in (root, root / folder)]:
        if is_there(candidate):
            return candidate
    packed = next((path for place in (root, root / folder) if (path := place / f"{names[0]}.zip").is_file()), None)
    if packed:
        raise UserError(f"{packed} is packed; unzip it there")
    raise UserError(f"{root} holds neither {names[0]} nor {folder}/{names[0]}; set --config.data.path to {WHAT}")
