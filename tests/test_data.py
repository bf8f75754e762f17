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
from efsgd_jax.data.declarations import MAX_CLASSES, parse_classes
from efsgd_jax.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8)
LABELS = np.arange(30) % 3


def save_npz(path, **changes):
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:9], "y_test": LABELS[:9]}
    arrays |= {"class_names": np.array(["0", "1", "2"]), **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_digits_split_is_fixed_disjoint_and_complete():
    a, b = load_dataset("digits"), load_dataset("digits")
    assert (len(a.train_images), len(a.test_images)) == (1422, 375)
    assert a.spec.shape == (8, 8, 1)
    assert a.fingerprint() == b.fingerprint()
    assert not {x.tobytes() for x in a.train_images} & {x.tobytes() for x in a.test_images}
    assert a.train_images.max() == 255


def test_a_data_set_is_shown_without_its_pixels():
    text = repr(load_dataset("digits"))
    assert text.startswith("Dataset(1422 training and 375 test images of shape (8, 8, 1), classes ('0', ")
    assert "array" not in text


def test_a_test_part_of_an_npz_is_kept_and_a_missing_one_is_split_off(tmp_path):
    whole = load_dataset("npz", path=save_npz(tmp_path / "a.npz"))
    np.testing.assert_array_equal(whole.train_images[..., 0], IMAGES)
    assert whole.train_images.dtype == np.uint8
    assert whole.train_labels.dtype == np.int32
    assert whole.class_names == ("0", "1", "2")
    split = load_dataset("npz", path=save_npz(tmp_path / "b.npz", x_test=None, y_test=None), test_fraction=0.3)
    assert len(split.train_images) + len(split.test_images) == 30
    assert 3 <= len(split.test_images) <= 15
    assert [x.tobytes() for x in IMAGES if x.tobytes() in {y.tobytes() for y in split.test_images}] == [
        x.tobytes() for x in split.test_images
    ]  # in the order of the file


@pytest.mark.parametrize(
    ("value_range", "low", "high"),
    [
        ("", 0, 1),
        ("0..1", 0, 1),
        ("0..255", 0, 255),
        ("-1..1", -1, 1),
        ("0..65535", 0, 65535),
        ("-3.5..1e3", -3.5, 1e3),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_range_is_declared_or_that_of_the_type(tmp_path, value_range, low, high, dtype):
    floats = {
        k: (low + v / 255.0 * (high - low)).astype(dtype) for k, v in (("x_train", IMAGES), ("x_test", IMAGES[:9]))
    }
    path = save_npz(tmp_path / "a.npz", **floats)
    data = load_dataset("npz", path=path, value_range=value_range)
    np.testing.assert_array_equal(data.train_images[..., 0], IMAGES)
    if high > 1:
        with pytest.raises(UserError, match=r"image 0.*--config\.data\.value_range=") as error:
            load_dataset("npz", path=path)
        one_line(error)


@pytest.mark.parametrize("top", [1, 16])
def test_nearly_black_integers_are_said(tmp_path, top):
    dark = {"x_train": IMAGES % (top + 1), "x_test": IMAGES[:9] % (top + 1)}
    path = save_npz(tmp_path / "a.npz", **dark)
    with pytest.warns(UserWarning, match=rf"nearly black.*--config\.data\.value_range=0\.\.{top}$"):
        data = load_dataset("npz", path=path)
    np.testing.assert_array_equal(data.train_images[..., 0], IMAGES % (top + 1))
    assert load_dataset("npz", path=path, value_range=f"0..{top}").train_images.max() == 255


def test_classes_are_named_or_declared(tmp_path):
    path = save_npz(tmp_path / "a.npz", class_names=None)
    with pytest.raises(UserError, match=r"--config\.data\.classes=3,") as error:
        load_dataset("npz", path=path)
    one_line(error)
    assert load_dataset("npz", path=path, classes="3").class_names == ("0", "1", "2")
    with pytest.warns(UserWarning, match=r"1 of 4 classes have no training image \('d'\)"):
        assert load_dataset("npz", path=path, classes="a,b,c,d").class_names == ("a", "b", "c", "d")
    with pytest.raises(UserError, match="outside the 2 classes"):
        load_dataset("npz", path=path, classes="2")
    named = save_npz(tmp_path / "b.npz", class_names=np.array(["x", "y", "z"]))
    assert load_dataset("npz", path=named).class_names == ("x", "y", "z")
    assert load_dataset("npz", path=named, classes="3").class_names == ("x", "y", "z")
    with pytest.raises(UserError, match="has 3 classes"):
        load_dataset("npz", path=named, classes="4")


def test_the_number_of_classes_has_one_limit_however_it_is_declared():
    names = [f"c{i}" for i in range(MAX_CLASSES + 1)]
    assert parse_classes(str(MAX_CLASSES)) == len(parse_classes(",".join(names[:-1]))) == MAX_CLASSES
    for text in (str(MAX_CLASSES + 1), ",".join(names), "0", "a,a", "a,"):
        with pytest.raises(UserError, match="from 1 to 100000") as error:
            parse_classes(text)
        assert len(str(error.value)) < 400


def test_images_that_are_there_twice_are_counted(tmp_path):
    twice = np.concatenate([IMAGES[:-2], IMAGES[:2]])
    with pytest.warns(UserWarning, match="2 of 30 images are the same, byte for byte"):
        data = load_dataset("npz", path=save_npz(tmp_path / "a.npz", x_train=twice, x_test=None, y_test=None))
    assert not {x.tobytes() for x in data.train_images} & {x.tobytes() for x in data.test_images}


def test_size_and_channels_are_converted(tmp_path):
    data = load_dataset("npz", path=save_npz(tmp_path / "a.npz"), image_size=16, channels=3)
    assert data.train_images.shape == (30, 16, 16, 3)
    np.testing.assert_array_equal(data.train_images[..., 0], data.train_images[..., 2])


def test_every_pixel_value_survives_the_unit_range():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_unit_range(every)), every)
    np.testing.assert_array_equal(to_uint8(np.array([-3.0, 3.0])), [0, 255])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": IMAGES[:5]}, "5 images but 30 labels"),
        ({"class_names": np.array([], "U1")}, "label 0 at index 0 is outside the 0 classes"),
        ({"y_train": LABELS - 1}, "negative"),
        ({"y_train": np.where(LABELS == 1, 9, LABELS)}, "label 9 at index 1 is outside the 3 classes"),
        ({"y_train": LABELS + 0.5}, "integers"),
        ({"y_train": np.eye(3)[LABELS]}, "argmax"),
        ({"x_train": np.full((30, 8, 8), np.nan)}, "nan"),
        ({"x_train": IMAGES.astype(np.int16) + 100}, "value_range"),
        ({"x_train": np.array([object()] * 30)}, "pickled"),
        ({"x_train": IMAGES[:, :, :, None, None]}, "shape"),
        ({"x_train": np.repeat(IMAGES[..., None], 2, -1)}, "channel"),
        ({"x_train": IMAGES[:, :4], "x_test": IMAGES[:9, :4]}, "image_size"),
        ({"y_train": None}, "y_train"),
        ({"y_test": None}, "y_test"),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "0"),
    ],
)
def test_unusable_arrays_are_refused_in_one_line(tmp_path, changes, words):
    with pytest.raises(UserError) as error:
        load_dataset("npz", path=save_npz(tmp_path / "mine.npz", **changes))
    message = one_line(error)
    assert "mine.npz" in message
    assert words in message.lower()


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04rubbish"])
def test_unreadable_files_are_refused_by_name(tmp_path, content):
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


def test_idx_files_are_read_as_they_are(idx):
    data = load_dataset("idx", path=idx, classes="3")
    np.testing.assert_array_equal(data.train_images[..., 0], IMAGES)
    np.testing.assert_array_equal(data.test_labels, LABELS[:9])


def test_damaged_idx_files_are_refused_by_name(idx):
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
    labels["class_names"] = None
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
        ({"name": "digits", "value_range": "0..16"}, "value_range"),
        ({"name": "npz", "value_range": "0-16"}, "value_range"),
        ({"name": "npz", "value_range": "16..0"}, "value_range"),
        ({"name": "npz", "value_range": "0..inf"}, "value_range"),
        ({"name": "npz", "classes": "0"}, "classes"),
        ({"name": "npz", "classes": "a,a"}, "classes"),
        ({"name": "npz", "classes": "a,"}, "classes"),
        ({"name": "folder"}, "path"),
        ({"name": "tfds:"}, "NAME"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(kwargs, words):
    with pytest.raises(UserError, match=words) as error:
        load_dataset(kwargs.pop("name"), **kwargs)
    one_line(error)
