"""Files that are no images that can be decoded are skipped, and a warning counts and names them."""

import importlib.util
import warnings

import pytest
from layouts import HEIC, dicom
from malformed import pictures

from efsgd_jax import load_dataset
from efsgd_jax.data import decode, extras
from efsgd_jax.errors import UserError


def warned(root, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_dataset("folder", path=root, **options)
    return [str(w.message) for w in caught]


def write(root, files):
    pictures("8.png", b"")(root)
    (root / "b/8.png").unlink()
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def without_extras(monkeypatch):
    """As if pillow_heif and pydicom were not installed."""
    found = importlib.util.find_spec
    missing = ("pillow_heif", "pydicom")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
    for cached in (extras.optional_extensions, decode.image_extensions):
        cached.cache_clear()
    without = decode.image_extensions() - {*extras.HEIC, *extras.DICOM}
    monkeypatch.setattr("efsgd_jax.data.tree.image_extensions", lambda: without)
    yield
    for cached in (extras.optional_extensions, decode.image_extensions):
        cached.cache_clear()


def test_what_is_skipped_is_counted_and_named(tmp_path, without_extras):
    files = {f"a/IMG_{i}.HEIC": HEIC for i in range(30)} | {f"a/scan{i}": b"data" for i in range(20)}
    files |= {f"b/{i}.dcm": dicom() for i in range(10)}
    (message,) = warned(write(tmp_path, files))
    assert "60 of 76 files were skipped" in message
    assert "30 with the extension .heic, such as a/IMG_0.HEIC (pip install 'efsgd_jax[heic]' reads them)" in message
    assert "20 without an extension, such as a/scan0;" in message
    assert "10 with the extension .dcm, such as b/0.dcm (pip install 'efsgd_jax[dicom]' reads them)" in message


def test_files_that_always_lie_beside_images_are_no_reason_to_warn(tmp_path):
    files = dict.fromkeys(["README", "a/Thumbs.db", "notes.txt", "a/desktop.ini", ".DS_Store", "LICENSE"], b"words")
    assert warned(write(tmp_path, files)) == []


def test_with_the_packages_all_are_read(tmp_path):
    files = {"a/9.heic": HEIC, "b/9.dcm": dicom()}
    assert not any("skipped" in message for message in warned(write(tmp_path, files)))
    data = load_dataset("folder", path=tmp_path)
    assert len(data.train_labels) + len(data.test_labels) == 18


def test_a_folder_of_skipped_files_alone_says_why(tmp_path, without_extras):
    for i in range(3):
        (tmp_path / f"{i}.heic").write_bytes(HEIC)
    with pytest.warns(UserWarning, match=r"3 of 3 files were skipped"), pytest.raises(UserError, match="no image"):
        load_dataset("folder", path=tmp_path, classes="1")
