"""Sources of arrays: what each reads, and what each says about input it cannot use."""

import gzip
import struct
import sys

import malformed
import numpy as np
import pooch
import pytest
from malformed import prepared

from efsgd_jax import load_dataset
from efsgd_jax.data import to_uint8, to_unit_range
from efsgd_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8)
LABELS = np.arange(30) % 3


def save_npz(path, **changes):
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:9], "y_test": LABELS[:9], **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_digits_split_is_fixed_disjoint_and_complete():
    a, b = load_dataset("digits"), load_dataset("digits")
    assert (len(a.train_images), len(a.test_images)) == (1438, 359)
    assert a.spec.shape == (8, 8, 1)
    assert a.fingerprint() == b.fingerprint()
    rows = {x.tobytes() for x in a.train_images} & {x.tobytes() for x in a.test_images}
    assert len(rows) < 5  # the bundled set has a few duplicates of its own
    assert a.train_images.max() == 255


def test_npz_with_and_without_a_test_part(tmp_path):
    whole = load_dataset("npz", path=save_npz(tmp_path / "a.npz"))
    np.testing.assert_array_equal(whole.train_images[..., 0], IMAGES)
    assert whole.train_images.dtype == np.uint8
    assert whole.train_labels.dtype == np.int32
    assert whole.class_names == ("0", "1", "2")
    split = load_dataset("npz", path=save_npz(tmp_path / "b.npz", x_test=None, y_test=None), test_fraction=0.3)
    assert (len(split.train_images), len(split.test_images)) == (21, 9)


@pytest.mark.parametrize("scale", [255.0, 1.0])
def test_floats_are_bytes_or_unit_range(tmp_path, scale):
    floats = {k: v / 255.0 * scale for k, v in (("x_train", IMAGES), ("x_test", IMAGES[:9]))}
    data = load_dataset("npz", path=save_npz(tmp_path / "a.npz", **floats))
    np.testing.assert_array_equal(data.train_images[..., 0], IMAGES)


def test_size_and_channels_are_converted(tmp_path):
    data = load_dataset("npz", path=save_npz(tmp_path / "a.npz"), image_size=16, channels=3)
    assert data.train_images.shape == (30, 16, 16, 3)
    np.testing.assert_array_equal(data.train_images[..., 0], data.train_images[..., 2])


def test_unit_range_round_trip():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_unit_range(every)), every)
    np.testing.assert_array_equal(to_uint8(np.array([-3.0, 3.0])), [0, 255])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": IMAGES[:5]}, "5 images but 30 labels"),
        ({"y_train": LABELS * 0, "y_test": LABELS[:9] * 0}, "two classes"),
        ({"y_train": LABELS - 1}, "negative"),
        ({"y_train": np.where(LABELS == 1, 9, LABELS)}, "renumber"),
        ({"y_train": LABELS + 0.5}, "integers"),
        ({"y_train": np.eye(3)[LABELS]}, "argmax"),
        ({"x_train": np.full((30, 8, 8), np.nan)}, "nan"),
        ({"x_train": IMAGES.astype(np.int16) + 100}, "uint8"),
        ({"x_train": np.array([object()] * 30)}, "pickled"),
        ({"x_train": IMAGES[:, :, :, None, None]}, "shape"),
        ({"x_train": np.repeat(IMAGES[..., None], 2, -1)}, "channel"),
        ({"x_train": IMAGES[:, :4]}, "image_size"),
        ({"y_train": None}, "y_train"),
        ({"y_test": None}, "y_test"),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "0"),
    ],
)
def test_unusable_arrays(tmp_path, changes, words):
    with pytest.raises(UserError) as error:
        load_dataset("npz", path=save_npz(tmp_path / "mine.npz", **changes))
    message = one_line(error)
    assert "mine.npz" in message
    assert words in message.lower()


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04rubbish"])
def test_unreadable_files(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz"):
        load_dataset("npz", path=tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"b\.npz"):
        load_dataset("npz", path=tmp_path / "b.npz")


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture(params=["", ".gz"])
def idx(request, tmp_path):
    for part, n in (("train", 30), ("t10k", 9)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{request.param}", IMAGES[:n])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{request.param}", LABELS[:n])
    return tmp_path


def test_idx(idx):
    data = load_dataset("idx", path=idx)
    np.testing.assert_array_equal(data.train_images[..., 0], IMAGES)
    np.testing.assert_array_equal(data.test_labels, LABELS[:9])


def test_damaged_idx(idx):
    file = next(idx.glob("train-images*"))
    whole = file.read_bytes()
    for damaged in (whole[:-40], b"", b"\x00\x00\x09\x03" + whole[4:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="train-images"):
            load_dataset("idx", path=idx)
    file.unlink()
    with pytest.raises(UserError, match="train-images"):
        load_dataset("idx", path=idx)


def test_known_names_come_from_the_cache_and_failing_that_say_how_to_pass_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSGD_JAX_DATA", str(tmp_path))
    asked = []

    def offline(self, url, output_file, pooch, check_only=False):
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", offline)
    with pytest.raises(UserError, match=r"--config\.data\.path") as error:
        load_dataset("fashion_mnist")
    assert "no network" in one_line(error)
    assert len(asked) == 2  # both mirrors
    labels = {"y_train": np.arange(30) % 10, "y_test": np.arange(9)}
    save_npz(tmp_path / "fashion_mnist.npz", **labels)
    data = load_dataset("fashion_mnist")
    assert data.class_names[9] == "Ankle boot"
    assert load_dataset("mnist", path=save_npz(tmp_path / "m.npz", **labels)).class_names[9] == "9"


def test_tfds_reads_a_prepared_array_record_set_without_tensorflow(tmp_path):
    data = load_dataset("tfds:toy", path=prepared()(tmp_path))
    np.testing.assert_array_equal(data.train_images[..., 0], malformed.IMAGES)
    np.testing.assert_array_equal(data.test_labels, [0, 1, 0, 1])
    assert data.class_names == ("a", "b")
    assert "tensorflow" not in sys.modules
    with pytest.raises(UserError, match="download_and_prepare"):
        load_dataset("tfds:other", path=tmp_path)
    with pytest.raises(UserError, match="attribute"):
        load_dataset("tfds:toy", path=tmp_path, attribute="colour")


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"name": "digitz"}, "digits"),
        ({"name": "digits", "path": "x"}, "no path"),
        ({"name": "digits", "channels": 2}, "channels"),
        ({"name": "digits", "image_size": -1}, "image_size"),
        ({"name": "digits", "test_fraction": 1.0}, "test_fraction"),
        ({"name": "digits", "attribute": "Male"}, "attribute"),
        ({"name": "folder"}, "path"),
        ({"name": "tfds:"}, "NAME"),
    ],
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(UserError, match=words) as error:
        load_dataset(kwargs.pop("name"), **kwargs)
    one_line(error)
