"""A directory or a .zip of class folders, optionally below train/ and test/."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

from efsgd_jax.data.archives import check_member, check_name
from efsgd_jax.data.decode import decode_all, image_extensions
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

WHAT = "a directory or .zip of class folders"
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first one present is the test part

Parts = tuple[str, ...]


def read_folder(path: Path | str | None, image_size: int | None, channels: int | None) -> RawDataset:
    """Every image below ``path``, labelled by its class folder.

    Layouts: ``<class>/**/<image>`` or ``{train,test}/<class>/**/<image>``; one wrapping directory around either is
    skipped. Beside ``train``, the test part is the first of ``test``, ``testing``, ``val``, ``valid``, ``validation``
    that exists; a further one is not read. Without any, the test part is split off later. Classes are numbered in
    the sorted order of their names. Hidden files, ``__MACOSX`` and files without an image's extension are ignored.
    A zip is read in memory and never extracted.

    Raises:
      UserError: nothing there, no class folders, an undecodable image, or unequal sizes without ``image_size``.
    """
    root = check_path(path, "folder", WHAT)
    with _open(root) as (members, read):
        if not members:
            raise UserError(f"{root} contains no image files; set --config.data.path to {WHAT} of images")
        train, test = _split_level(_unwrap(members), root)
        classes = sorted({_class_of(parts, member, root) for parts, member in train + test})
        labels = {name: i for i, name in enumerate(classes)}
        ordered = [member for _, member in train + test]
        images = decode_all(ordered, read, lambda member: f"{root}/{'/'.join(member)}", image_size, channels)
        numbers = np.array([labels[parts[0]] for parts, _ in train + test], np.int64)
    cut = len(train)
    return RawDataset(
        train_images=images[:cut],
        train_labels=numbers[:cut],
        test_images=images[cut:] if test else None,
        test_labels=numbers[cut:] if test else None,
        class_names=tuple(classes),
        source=f"folder:{root}",
    )


@contextlib.contextmanager
def _open(root: Path) -> Iterator[tuple[list[Parts], Callable[[Parts], bytes]]]:
    """The image files below ``root`` as sorted tuples of path parts, and how to read one."""
    if root.is_dir():

        def read_file(parts: Parts) -> bytes:
            file = root.joinpath(*parts)
            check_member(file.stat().st_size, str(file))
            return file.read_bytes()

        yield _images(list(_walk(root))), read_file
        return
    try:
        archive = zipfile.ZipFile(root)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{root} is neither a directory nor a readable .zip ({one_line(error)}); set {WHAT}") from error
    with archive:
        infos: dict[Parts, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            if info.is_dir():
                continue
            check_name(info.filename, str(root))
            parts = PurePosixPath(info.filename).parts
            if parts in infos:
                raise UserError(f"{root} holds {info.filename} twice; zip it again")
            infos[parts] = info

        def read(parts: Parts) -> bytes:
            check_member(infos[parts].file_size, f"{'/'.join(parts)} in {root}")
            try:
                return archive.read(infos[parts])
            # RuntimeError: encrypted; NotImplementedError: a compression method that Python lacks.
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
                raise UserError(f"cannot read {'/'.join(parts)} in {root} ({one_line(error)}); zip it again") from error

        yield _images(list(infos)), read


def _walk(root: Path) -> Iterator[Parts]:
    """Every file below ``root``, through links too. What is reached twice would count, and be protected, as two."""
    seen: dict[tuple[int, int], str] = {}

    def unreadable(error: OSError) -> NoReturn:
        raise UserError(f"cannot read {error.filename} ({error.strerror}); change its permissions") from error

    for directory, _, names in os.walk(root, followlinks=True, onerror=unreadable):
        status = Path(directory).stat()
        place = (status.st_dev, status.st_ino)
        if place in seen:
            raise UserError(f"{directory} is {seen[place]} again, by a link; remove the link")
        seen[place] = directory
        for name in names:
            file = Path(directory, name)
            parts = file.relative_to(root).parts
            if _is_image(parts) and not file.is_file():
                raise UserError(f"{file} is a link to nothing, or no regular file; remove it")
            yield parts


def _images(files: list[Parts]) -> list[Parts]:
    return sorted(parts for parts in files if _is_image(parts))


def _is_image(parts: Parts) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return PurePosixPath(parts[-1]).suffix.lower() in image_extensions() and not hidden


def _unwrap(members: list[Parts]) -> list[tuple[Parts, Parts]]:
    """Pairs (path below the wrapping directory, whole path)."""
    tops = {parts[0] for parts in members}
    wrapped = len(tops) == 1 and all(len(parts) >= 3 for parts in members) and not _is_split(*tops)
    return [(parts[1:] if wrapped else parts, parts) for parts in members]


def _is_split(name: str) -> bool:
    return name.lower() in TRAIN_NAMES + TEST_NAMES


def _split_level(
    entries: list[tuple[Parts, Parts]], root: Path
) -> tuple[list[tuple[Parts, Parts]], list[tuple[Parts, Parts]]]:
    """The entries of the training and of the test part, without the split's directory; or all of them and none."""
    tops = sorted({parts[0] for parts, _ in entries if len(parts) > 1})
    train_name = next((top for name in TRAIN_NAMES for top in tops if top.lower() == name), None)
    test_name = next((top for name in TEST_NAMES for top in tops if top.lower() == name), None)
    if train_name is None and test_name is not None and all(_is_split(top) for top in tops):
        raise UserError(f"{root} has {test_name}/ but no train/; put the training images below train/<class>/")
    others = [top for top in tops if not _is_split(top)]
    if train_name is None or (others and test_name is None):
        return entries, []
    if others:
        raise UserError(
            f"{root} has {train_name}/ and {test_name}/ but also {others[0]}/ beside them; keep either a train/test "
            "level or class folders there"
        )

    def below(name: str | None) -> list[tuple[Parts, Parts]]:
        return [(parts[1:], member) for parts, member in entries if parts[0] == name]

    return below(train_name), below(test_name)


def _class_of(parts: Parts, member: Parts, root: Path) -> str:
    if len(parts) < 2:
        raise UserError(
            f"{root}: the image {'/'.join(member)} lies in no class folder; the layout is <class>/<image> or "
            "{train,test}/<class>/<image>"
        )
    check_name(parts[0], str(root))
    return parts[0]
