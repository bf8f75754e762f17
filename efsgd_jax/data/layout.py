"""The layout of class folders below a root directory; it depends on the names of directories only, which are public."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from efsgd_jax.data.archives import check_name
from efsgd_jax.errors import UserError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first one present is the test part

Parts = tuple[str, ...]


class Layout(NamedTuple):
    """The directories of a data set's parts.

    Attributes:
      train: path of the directory with the class folders of the training part, as path parts below the root.
      test: the same for the test part; None if there is no test part.
      classes: the names of the class folders of both parts, in sorted order.
      root: the root directory or .zip file, for errors.
    """

    train: Parts
    test: Parts | None
    classes: list[str]
    root: Path

    def below(self, members: Sequence[Parts], part: Parts) -> list[Parts]:
        """The images below the directory ``part``, which is ``train`` or ``test``.

        Raises:
          UserError: an image is not in a class folder, or is beside the directories of the two parts.
        """
        found = []
        for member in members:
            inside = member[: len(part)] == part
            # An image in another part is left out, but one beside or above the directories of the parts is an error.
            without_class = len(member) == len(part) + 1 if inside else len(member) <= len(self.train)
            if without_class:
                raise UserError(
                    f"{self.root}: the image {'/'.join(member)} lies in no class folder; the layout is <class>/<image> "
                    "or {train,test}/<class>/<image>; for images without classes set --config.data.classes=1"
                )
            if inside:
                found.append(member)
        return found

    def unlabelled(self, members: Sequence[Parts], part: Parts) -> list[Parts]:
        """All images below the directory ``part``, if there are no classes.

        Raises:
          UserError: an image is beside the directories of the two parts.
        """
        if not self.is_split:
            return list(members)
        beside = [m for m in members if len(m) <= len(self.train) and m[: len(m) - 1] == self.train[: len(m) - 1]]
        if beside:
            raise UserError(
                f"{self.root}: the image {'/'.join(beside[0])} lies beside {'/'.join(self.train)}/; put it into one of "
                "the parts"
            )
        return [m for m in members if m[: len(part)] == part]

    @property
    def is_split(self) -> bool:
        """Whether the training images have a directory of their own, such as train/."""
        return bool(self.train) and self.train[-1].lower() in TRAIN_NAMES

    def class_of(self, member: Parts) -> str:
        """The name of the class folder of an image."""
        inside_test = self.test is not None and member[: len(self.test)] == self.test
        part = self.test if inside_test and self.test is not None else self.train
        return member[len(part)]


def layout_of(directories: set[Parts], root: Path) -> Layout:
    """Determines the layout from the names of all directories below ``root`` that are not hidden.

    Raises:
      UserError: there is a test part without a training part, there are class folders beside a training and a test
        part, or a name is not valid.
    """
    above: Parts = ()  # the directory above the parts or class folders: the root, or a single directory in it
    tops = _children(directories, above)
    if len(tops) == 1 and not _is_split(tops[0]) and _children(directories, (tops[0],)):
        above = (tops[0],)
        tops = _children(directories, above)
    train_name = next((top for name in TRAIN_NAMES for top in tops if top.lower() == name), None)
    test_name = next((top for name in TEST_NAMES for top in tops if top.lower() == name), None)
    if train_name is None and test_name is not None and all(_is_split(top) for top in tops):
        raise UserError(f"{root} has {test_name}/ but no train/; put the training images below train/<class>/")
    others = [top for top in tops if not _is_split(top)]
    if train_name is None or (others and test_name is None):
        return Layout(above, None, _checked(tops, root), root)
    if others:
        raise UserError(
            f"{root} has {train_name}/ and {test_name}/ but also {others[0]}/ beside them; keep either a train/test "
            "level or class folders there"
        )
    train = (*above, train_name)
    test = None if test_name is None else (*above, test_name)
    names = {name for part in (train, test) if part for name in _children(directories, part)}
    return Layout(train, test, _checked(sorted(names), root), root)


def _children(directories: set[Parts], parent: Parts) -> list[str]:
    """The names of the directories that are directly in ``parent``, in sorted order."""
    depth = len(parent)
    return sorted(d[depth] for d in directories if len(d) == depth + 1 and d[:depth] == parent)


def _is_split(name: str) -> bool:
    """Whether a directory of this name is a training or test part."""
    return name.lower() in TRAIN_NAMES + TEST_NAMES


def _checked(names: list[str], root: Path) -> list[str]:
    for name in names:
        check_name(name, str(root))
    return names
