"""The source ``tfds:NAME``: an image data set that TFDS has prepared as array_record, read without TensorFlow."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

TEST_SPLITS = ("test", "validation")


def read_tfds(name: str, path: Path | str | None, attribute: str | None) -> RawDataset:
    """Reads the split ``train`` of a prepared data set, and as test part ``test``, or ``validation`` if there is none.

    If the data set has neither, the test part is split off from ``train`` later.

    Args:
      name: name of the data set in TFDS, such as ``mnist``, ``emnist/letters`` or ``mnist:3.0.1``.
      path: the ``data_dir`` in which it was prepared; None means TFDS' own default.
      attribute: name of the feature that is the label, default ``label``; or of a boolean in the feature
        ``attributes``.

    Raises:
      UserError: the data set is not prepared or is in another format, has no split ``train``, or its examples have no
        image, no label, or images of different sizes or types.
    """
    if path is not None:
        check_path(path, f"tfds:{name}", "the data_dir that TFDS prepared it in")
    splits = _open(name, path)
    where = f"tfds:{name}" + ("" if path is None else f" in {path}")
    if "train" not in splits:
        raise UserError(f"{where} has no split 'train' (it has: {', '.join(splits) or 'none'}); prepare it again")
    test = next((split for split in TEST_SPLITS if split in splits), None)
    features = splits["train"].dataset_info.features
    with _quiet():
        train_images, train_labels = _arrays(splits["train"], attribute, f"{where} split train")
        test_images, test_labels = (
            (None, None) if test is None else _arrays(splits[test], attribute, f"{where} split {test}")
        )
    return RawDataset(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=_class_names(features, attribute),
        source=where,
    )


def _open(name: str, path: Path | str | None) -> dict[str, Any]:
    """Opens a data set: a dictionary from the name of a split to a random-access source."""
    advice = (
        f"on a machine with TensorFlow run python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', "
        "data_dir='DIR', file_format='array_record').download_and_prepare()\" and set --config.data.path=DIR"
    )
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"tfds:{name} needs the package tensorflow-datasets ({one_line(error)}); install it") from error
    try:
        with _quiet():
            return dict(tfds.data_source(name, data_dir=path, download=False))
    # For a data set that does not exist, is partly prepared or is prepared as tfrecord, TFDS raises
    # NotImplementedError, ValueError, AssertionError or DatasetNotFoundError, or the builder's own code imports
    # TensorFlow.
    except Exception as error:
        raise UserError(
            f"tfds:{name} is not prepared as array_record in {path or 'the default data_dir'} "
            f"({type(error).__name__}: {one_line(error)}); {advice}"
        ) from error


def _arrays(source: Sequence[Any], attribute: str | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for i in range(len(source)):
        try:
            example = source[i]
        except Exception as error:  # whatever the record reader or the image decoder raises on damaged bytes
            raise UserError(f"{where}: example {i} cannot be read ({one_line(error)}); prepare it again") from error
        label = _label(example, attribute)
        if "image" not in example or label is None:
            raise UserError(
                f"{where}: the examples have the features {', '.join(sorted(example))}, not 'image' and "
                f"{attribute or 'label'!r}; set --config.data.attribute to the feature that is the label"
            )
        image = np.asarray(example["image"])
        if images and (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            raise UserError(
                f"{where}: example 0 has shape {images[0].shape} of {images[0].dtype} and example {i} has shape "
                f"{image.shape} of {image.dtype}; only sets of images of one size and type can be read"
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise UserError(f"{where} holds no examples; prepare it again")
    return np.stack(images), np.array(labels)


def _label(example: Any, attribute: str | None) -> Any:
    """The label of an example: a feature of its own, or a boolean in the feature ``attributes``; None if absent."""
    key = attribute or "label"
    return example[key] if key in example else example.get("attributes", {}).get(key)


def _class_names(features: Any, attribute: str | None) -> tuple[str, ...] | None:
    """The names that TFDS has for the labels or, for a boolean in ``attributes``, "not NAME" and "NAME"."""
    key = attribute or "label"
    names = getattr(features[key], "names", None) if key in features else None
    if names:
        return tuple(names)
    return (f"not {attribute}", attribute) if attribute and attribute not in features else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses TFDS' warnings about OpenCV and unprepared folders, which go through absl's logger."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
