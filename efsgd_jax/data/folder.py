"""The source ``folder``: a directory or a .zip file of images, in class folders or with a list of their labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from efsgd_jax.data.dataset import Empty, in_memory
from efsgd_jax.data.declarations import declared_folders, only_class
from efsgd_jax.data.decode import decode_parts, warn_of_conversion
from efsgd_jax.data.groups import BY_FOLDER
from efsgd_jax.data.label_files import Labels, find_labels, group_column, read_groups, unused_list
from efsgd_jax.data.layout import Layout, Parts, layout_of
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.scale import BYTES, Range
from efsgd_jax.data.tree import Tree, open_tree, warn_of_others
from efsgd_jax.data.validate import check_path
from efsgd_jax.errors import UserError

WHAT = "a directory or .zip of class folders"


def read_folder(
    path: Path | str | None,
    image_size: int | None,
    channels: int | None,
    classes: int | tuple[str, ...] | None = None,
    value_range: Range | None = None,
    labels: str = "",
    attribute: str | None = None,
    groups: str = "",
    empty: Empty = in_memory,
) -> RawDataset:
    """Reads all images below ``path``; the label of an image is its class folder, or that in a list of labels.

    The layout is ``<class>/**/<image>`` or ``{train,test}/<class>/**/<image>``; a single directory around either is
    skipped. The training part may also be named ``training``. The test part is the first of ``test``, ``testing``,
    ``val``, ``valid``, ``validation`` that exists; further ones are not read. If there is none, the test part is split
    off later. If a single class is declared, the images have no labels: folders other than the two parts' mean nothing,
    and there need not be any. The layout depends on the names of directories only. The classes are the names of the
    class folders of both parts, also of those without an image, in sorted order; or the declared classes, in their
    order. Hidden files and ``__MACOSX`` are ignored, and a warning counts other files that were not read. A zip file is
    read in memory and never extracted.

    If there is a list of labels (see ``label_files.find_labels``), folders other than the two parts' mean nothing. Its
    labels are text, and the classes must be declared.

    Args:
      path: the directory or .zip file.
      image_size: height and width to which images are cropped and resized; if None, all images must have the same size.
      channels: number of channels, 1 or 3; None means 3.
      classes: the declared classes, as ``parse_classes`` returns them.
      value_range: the range of the numbers in the files; None for the full range of their bits.
      labels: the list of labels, by its name below ``path`` or its own path; "" for StyleGAN's dataset.json and Hugging
        Face's metadata files, where they are there.
      attribute: the column of the list with the labels; None for one with a usual name.
      groups: a list of the images' groups, as ``labels``; or "folder" if the directory directly above an image, below
        its class folder, names its group. "" for no groups.
      empty: what allocates the array of all images.

    Raises:
      UserError: there are no images or no class folders, a class folder was not declared, an image cannot be decoded or
        is not in the list of labels, two files are links to the same file, or sizes differ without ``image_size``.
    """
    root = check_path(path, "folder", WHAT)
    with open_tree(root, WHAT) as tree:
        if not tree.images:
            warn_of_others(tree)
            raise UserError(f"{root} contains no image files; set --config.data.path to {WHAT} of images")
        layout = layout_of(tree.directories, root)
        parts = [part for part in (layout.train, layout.test) if part is not None]
        lists = {} if only_class(classes) else find_labels(tree, labels, attribute, parts)
        by_folder = not lists and not only_class(classes)
        below = layout.below if by_folder else layout.unlabelled
        try:
            train = below(tree.images, layout.train)
            test = below(tree.images, layout.test) if layout.test else []
        except UserError as error:
            raise UserError(f"{error}{unused_list(tree)}") from error
        names = None if lists else declared_folders(classes, layout.classes, str(root))
        ordered, target = train + test, channels or 3
        if not train:
            raise UserError(f"{'/'.join((str(root), *layout.train))} contains no image files; add training images")
        all_labels = _listed(lists, ordered, tree) if lists else _numbers(layout, ordered, names or (), by_folder)
        units = _groups(tree, layout, ordered, groups)
        known = "" if groups else group_column(tree, labels)
        images, test_images = decode_parts(
            train, test if layout.test else None, tree.read, tree.name, image_size, target, value_range, empty
        )
        warn_of_others(tree)
    source, num_train = f"folder:{root}", len(train)
    warn_of_conversion(images.gray, target, channels, source)
    return RawDataset(
        train_images=images.pixels,
        train_labels=all_labels[:num_train],
        test_images=test_images,
        test_labels=all_labels[num_train:] if layout.test else None,
        class_names=names,
        source=source,
        # The declared range was applied when the files were decoded, and must not be applied again.
        value_range=BYTES if value_range else None,
        hashes=images.hashes,
        groups=units,
        known_groups=known,
    )


def _groups(tree: Tree, layout: Layout, images: Sequence[Parts], groups: str) -> np.ndarray | None:
    """The name of each image's group; None without groups."""
    if not groups:
        return None
    if groups != BY_FOLDER:
        return np.array(read_groups(tree, groups).of(images))
    for image in images:
        part = layout.test if layout.test is not None and image[: len(layout.test)] == layout.test else layout.train
        if len(image) < len(part) + 3:
            raise UserError(
                f"{tree.name(image)} is in no folder of a group; with --config.data.groups={BY_FOLDER} the layout is "
                "<class>/<group>/<image>"
            )
    return np.array([image[-2] for image in images])


def _numbers(layout: Layout, images: Sequence[Parts], names: Sequence[str], by_folder: bool) -> np.ndarray:
    """The number of each image's class folder among ``names``; zeros if folders are not classes."""
    numbers = {name: i for i, name in enumerate(names)}
    return np.array([numbers[layout.class_of(image)] if by_folder else 0 for image in images], np.int64)


def _listed(lists: dict[Parts, Labels], images: Sequence[Parts], tree: Tree) -> np.ndarray:
    """The label of each image as text, from the list of the closest directory above it."""
    result = dict.fromkeys(images, "")
    groups: dict[Parts, list[Parts]] = {}
    for image in images:
        above = next((image[:i] for i in range(len(image), -1, -1) if image[:i] in lists), None)
        if above is None:
            raise UserError(f"{tree.name(image)} is below no list of labels; the lists are of other directories")
        groups.setdefault(above, []).append(image)
    for above, members in groups.items():
        result.update(zip(members, lists[above].of(members), strict=True))
    return np.array([result[image] for image in images])
