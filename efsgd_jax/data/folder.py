"""The source ``folder``: a directory or a .zip file of class folders, optionally below train/ and test/."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

from efsgd_jax.data.archives import check_member, check_name
from efsgd_jax.data.declarations import declared_folders, only_class
from efsgd_jax.data.decode import decode_all, image_extensions, warn_of_conversion
from efsgd_jax.data.layout import Parts, layout_of
from efsgd_jax.data.links import Seen
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.scale import BYTES, Range
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

WHAT = "a directory or .zip of class folders"


def read_folder(
    path: Path | str | None,
    image_size: int | None,
    channels: int | None,
    classes: int | tuple[str, ...] | None = None,
    value_range: Range | None = None,
) -> RawDataset:
    """Reads all images below ``path``; the label of an image is its class folder.

    The layout is ``<class>/**/<image>`` or ``{train,test}/<class>/**/<image>``; a single directory around either is
    skipped. The training part may also be named ``training``. The test part is the first of ``test``, ``testing``,
    ``val``, ``valid``, ``validation`` that exists; further ones are not read. If there is none, the test part is split
    off later. If a single class is declared, the images have no labels: folders other than the two parts' mean nothing,
    and there need not be any. The layout depends on the names of directories only. The classes are the names of the
    class folders of both parts, also of those without an image, in sorted order; or the declared classes, in their
    order. Hidden files, ``__MACOSX`` and files without an image's extension are ignored. A zip file is read in memory
    and never extracted.

    Args:
      path: the directory or .zip file.
      image_size: height and width to which images are cropped and resized; if None, all images must have the same size.
      channels: number of channels, 1 or 3; None means 3.
      classes: the declared classes, as ``parse_classes`` returns them.
      value_range: the range of the numbers in the files; None for the full range of their bits.

    Raises:
      UserError: there are no images or no class folders, a class folder was not declared, an image cannot be decoded,
        two files are links to the same file, or sizes differ without ``image_size``.
    """
    root = check_path(path, "folder", WHAT)
    with _open(root) as (members, directories, read):
        if not members:
            raise UserError(f"{root} contains no image files; set --config.data.path to {WHAT} of images")
        layout = layout_of(directories, root)
        below = layout.unlabelled if only_class(classes) else layout.below
        train = below(members, layout.train)
        test = below(members, layout.test) if layout.test else []
        names = declared_folders(classes, layout.classes, str(root))
        labels = {} if only_class(classes) else {name: i for i, name in enumerate(names)}
        ordered, target = train + test, channels or 3
        if not train:
            raise UserError(f"{'/'.join((str(root), *layout.train))} contains no image files; add training images")
        images, gray, hashes = decode_all(
            ordered, read, lambda member: f"{root}/{'/'.join(member)}", image_size, target, value_range
        )
        found = [labels[layout.class_of(member)] if labels else 0 for member in ordered]
        all_labels = np.array(found, np.int64)
    source, num_train = f"folder:{root}", len(train)
    warn_of_conversion(gray, target, channels, source)
    return RawDataset(
        train_images=images[:num_train],
        train_labels=all_labels[:num_train],
        test_images=images[num_train:] if layout.test else None,
        test_labels=all_labels[num_train:] if layout.test else None,
        class_names=names,
        source=source,
        # The declared range was applied when the files were decoded, and must not be applied again.
        value_range=BYTES if value_range else None,
        hashes=hashes,
    )


@contextlib.contextmanager
def _open(root: Path) -> Iterator[tuple[list[Parts], set[Parts], Callable[[Parts], bytes]]]:
    """Opens ``root``, a directory or a .zip file.

    Yields:
      The image files as sorted tuples of path parts, the directories that are not hidden, and a function that reads a
      file.
    """
    if root.is_dir():

        def read_file(parts: Parts) -> bytes:
            file = root.joinpath(*parts)
            check_member(file.stat().st_size, str(file))
            return file.read_bytes()

        directories: set[Parts] = set()
        yield _images(list(_walk(root, directories))), directories, read_file
        return
    try:
        archive = zipfile.ZipFile(root)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{root} is neither a directory nor a readable .zip ({one_line(error)}); set {WHAT}") from error
    with archive:
        infos: dict[Parts, zipfile.ZipInfo] = {}
        inside: set[Parts] = set()
        for info in archive.infolist():
            check_name(info.filename, str(root))
            parts = PurePosixPath(info.filename).parts
            # A zip file may lack entries for directories, so that they are also derived from the paths of the files.
            above = parts if info.is_dir() else parts[:-1]
            inside.update(above[:i] for i in range(1, len(above) + 1) if not _is_hidden(above[:i]))
            if info.is_dir():
                continue
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

        yield _images(list(infos)), inside, read


def _walk(root: Path, directories: set[Parts]) -> Iterator[Parts]:
    """Yields all files below ``root``, following links, and adds directories that are not hidden to ``directories``.

    A directory or image that is reached twice by links is an error, which also ends loops of links.
    """
    seen = Seen()

    def unreadable(error: OSError) -> NoReturn:
        raise UserError(f"cannot read {error.filename} ({error.strerror}); change its permissions") from error

    for directory, below, names in os.walk(root, followlinks=True, onerror=unreadable):
        below.sort()
        seen.check(Path(directory))
        here = Path(directory).relative_to(root).parts
        if here and not _is_hidden(here):
            directories.add(here)
        for name in sorted(names):
            file, parts = Path(directory, name), (*here, name)
            if _is_image(parts):
                if not file.is_file():
                    raise UserError(f"{file} is a link to nothing, or no regular file; remove it")
                seen.check(file)
            yield parts


def _images(files: list[Parts]) -> list[Parts]:
    return sorted(parts for parts in files if _is_image(parts))


def _is_image(parts: Parts) -> bool:
    return PurePosixPath(parts[-1]).suffix.lower() in image_extensions() and not _is_hidden(parts)


def _is_hidden(parts: Parts) -> bool:
    """Whether a part of the path is hidden, or is the folder of metadata that macOS adds to zip files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
