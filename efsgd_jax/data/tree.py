"""``open_tree``: the files of a directory or a .zip file, which is read in memory and never extracted."""

import contextlib
import os
import unicodedata
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

from efsgd_jax.data.archives import check_member, check_name
from efsgd_jax.data.decode import image_extensions
from efsgd_jax.data.extras import MISSING_EXTRA
from efsgd_jax.data.layout import Parts
from efsgd_jax.data.links import Seen
from efsgd_jax.data.validate import one_line
from efsgd_jax.errors import UserError

# Files that lie beside images and are not missed, by name or extension, in lower case.
BESIDE = {"readme", "license", "thumbs.db", "desktop.ini", ".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".parquet"}
BESIDE |= {".pdf", ".yaml", ".yml", ".xml", ".html", ".py", ".ipynb"}
# A zip entry with this flag has its name in UTF-8; other names are in the encoding of the machine that made the file.
UTF8_FLAG = 0x800


class Tree(NamedTuple):
    """The files below a root.

    Attributes:
      root: the directory or .zip file.
      images: the image files as sorted tuples of path parts, in Unicode's composed form (NFC).
      others: all other files that are not hidden, in the same form.
      directories: the directories that are not hidden.
      read: returns the bytes of a file.
    """

    root: Path
    images: list[Parts]
    others: list[Parts]
    directories: set[Parts]
    read: Callable[[Parts], bytes]

    def name(self, parts: Parts) -> str:
        """The file's name for a message."""
        return "/".join((str(self.root), *parts))


@contextlib.contextmanager
def open_tree(root: Path, what: str) -> Iterator[Tree]:
    """Opens ``root``, a directory or a .zip file, which ``what`` describes in an error.

    Raises:
      UserError: it is neither, has a name that is not valid or is there twice, or has a file or directory that is
        reached twice by links.
    """
    if root.is_dir():
        yield _of_directory(root)
        return
    try:
        archive = zipfile.ZipFile(root)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{root} is neither a directory nor a readable .zip ({one_line(error)}); set {what}") from error
    with archive:
        yield _of_archive(root, archive)


def _of_directory(root: Path) -> Tree:
    paths: dict[Parts, Path] = {}
    directories: set[Parts] = set()
    for parts, path in _walk(root, directories):
        _add(paths, parts, path, root)

    def read(parts: Parts) -> bytes:
        check_member(paths[parts].stat().st_size, str(paths[parts]))
        return paths[parts].read_bytes()

    return _tree(root, paths, directories, read)


def _of_archive(root: Path, archive: zipfile.ZipFile) -> Tree:
    infos: dict[Parts, zipfile.ZipInfo] = {}
    directories: set[Parts] = set()
    for info in archive.infolist():
        name = _decoded(info)
        check_name(name, str(root))
        parts = _composed(PurePosixPath(name).parts)
        # A zip file may lack entries for directories, so that they are also derived from the paths of the files.
        above = parts if info.is_dir() else parts[:-1]
        directories.update(above[:i] for i in range(1, len(above) + 1) if not _is_hidden(above[:i]))
        if not info.is_dir():
            _add(infos, parts, info, root)

    def read(parts: Parts) -> bytes:
        check_member(infos[parts].file_size, f"{'/'.join(parts)} in {root}")
        try:
            return archive.read(infos[parts])
        # RuntimeError: encrypted; NotImplementedError: a compression method that Python lacks.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"cannot read {'/'.join(parts)} in {root} ({one_line(error)}); zip it again") from error

    return _tree(root, infos, directories, read)


def _tree(root: Path, files: Sequence[Parts] | dict, directories: set[Parts], read: Callable[[Parts], bytes]) -> Tree:
    seen = sorted(parts for parts in files if not _is_hidden(parts))
    images = [parts for parts in seen if _is_image(parts)]
    return Tree(root, images, [parts for parts in seen if not _is_image(parts)], directories, read)


def _add(files: dict, parts: Parts, value: object, root: Path) -> None:
    if parts in files:
        raise UserError(f"{root} holds {'/'.join(parts)} twice, or two names that look the same; rename one of them")
    files[parts] = value


def _decoded(info: zipfile.ZipInfo) -> str:
    """The name of a zip entry. Python reads one without the flag as CP437; many programs wrote UTF-8 without it."""
    if info.flag_bits & UTF8_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _composed(parts: Sequence[str]) -> Parts:
    """Names in NFC: macOS writes an accented letter as two characters, and a declared class name has one."""
    return tuple(unicodedata.normalize("NFC", part) for part in parts)


def _walk(root: Path, directories: set[Parts]) -> Iterator[tuple[Parts, Path]]:
    """Yields all files below ``root``, following links, and adds directories that are not hidden to ``directories``.

    A directory or image that is reached twice by links is an error, which also ends loops of links.
    """
    seen = Seen()

    def unreadable(error: OSError) -> NoReturn:
        raise UserError(f"cannot read {error.filename} ({error.strerror}); change its permissions") from error

    for directory, below, names in os.walk(root, followlinks=True, onerror=unreadable):
        below.sort()
        seen.check(Path(directory))
        here = _composed(Path(directory).relative_to(root).parts)
        if here and not _is_hidden(here):
            directories.add(here)
        for name in sorted(names):
            file, parts = Path(directory, name), (*here, *_composed((name,)))
            if _is_image(parts) and not _is_hidden(parts):
                if not file.is_file():
                    raise UserError(f"{file} is a link to nothing, or no regular file; remove it")
                seen.check(file)
            yield parts, file


def _is_image(parts: Parts) -> bool:
    return PurePosixPath(parts[-1]).suffix.lower() in image_extensions()


def _is_hidden(parts: Parts) -> bool:
    """Whether a part of the path is hidden, or is the folder of metadata that macOS adds to zip files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def warn_of_others(tree: Tree) -> None:
    """Warns about files that may be images and were not read; only the owner of the data sees warnings."""
    kinds: Counter[str] = Counter()
    first: dict[str, Parts] = {}
    for parts in tree.others:
        name = parts[-1].lower()
        kind = PurePosixPath(name).suffix
        if not {name, kind or name, PurePosixPath(name).stem} & BESIDE:
            kinds[kind] += 1
            first.setdefault(kind, parts)
    if not kinds:
        return
    listed = "; ".join(
        f"{count} {f'with the extension {kind}' if kind else 'without an extension'}, such as "
        f"{'/'.join(first[kind])}{MISSING_EXTRA.get(kind, '')}"
        for kind, count in kinds.most_common(5)
    )
    warnings.warn(
        f"{tree.root}: {kinds.total()} of {kinds.total() + len(tree.images)} files were skipped, since their names do "
        f"not end like those of images that can be decoded: {listed}; convert or rename them if they are images",
        stacklevel=2,
    )
