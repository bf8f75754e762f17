"""Sources of image files: folders, zips and CelebA's own layout."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from efsgd_jax import load_dataset
from efsgd_jax.errors import UserError

RNG = np.random.default_rng(0)


def picture(path, size=(20, 14), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    image = Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8))
    image.save(path)
    return np.asarray(image)


@pytest.fixture
def tree(tmp_path):
    for name in ("cat", "dog"):
        for i, ext in enumerate(("png", "jpg", "bmp", "gif", "webp")):
            picture(tmp_path / "pets" / name / "deep" / f"{i}.{ext}")
        (tmp_path / "pets" / name / "notes.txt").write_text("not an image")
    return tmp_path / "pets"


def test_folder_reads_every_format_and_crops(tree):
    data = load_dataset("folder", path=tree, image_size=16)
    assert len(data.train_images) + len(data.test_images) == 10
    assert data.train_images.shape[1:] == data.test_images.shape[1:] == (16, 16, 3)
    assert data.class_names == ("cat", "dog")


def test_the_centre_is_what_is_kept(tmp_path):
    pixels = {}
    for name in ("a", "b"):
        for i in range(3):
            pixels[name, i] = picture(tmp_path / "p" / name / f"{i}.png", (20, 14), "L")
    data = load_dataset("folder", path=tmp_path / "p", image_size=14, channels=1, test_fraction=0.34)
    assert data.spec.channels == 1
    got = {x.tobytes() for x in np.concatenate([data.train_images, data.test_images])}
    assert got == {np.ascontiguousarray(x[:, 3:17]).tobytes() for x in pixels.values()}


def test_a_zip_is_the_same_as_its_directory(tree, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in tree.rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path))
        archive.writestr("__MACOSX/pets/cat/0.png", b"rubbish")
    a = load_dataset("folder", path=tree, image_size=16)
    b = load_dataset("folder", path=tmp_path / "pets.zip", image_size=16)
    assert a.fingerprint() == b.fingerprint()
    assert a.class_names == b.class_names


def test_a_given_split_is_kept(tmp_path):
    for part, n in (("train", 3), ("test", 2), ("val", 4)):
        for name in ("a", "b"):
            for i in range(n):
                picture(tmp_path / "s" / part / name / f"{i}.png", (8, 8))
    data = load_dataset("folder", path=tmp_path / "s")
    assert (len(data.train_images), len(data.test_images)) == (6, 4)


def test_odd_modes_become_gray_or_rgb(tmp_path):
    for name in ("a", "b"):
        for mode in ("RGBA", "L"):
            for i in range(2):
                picture(tmp_path / "m" / name / f"{mode}{i}.png", (8, 8), mode)
        Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "m" / name / "deep.png")
    with pytest.warns(
        UserWarning, match=r"6 of 10 images are grey and were converted to RGB.*--config\.data\.channels"
    ):
        data = load_dataset("folder", path=tmp_path / "m")
    assert data.spec.channels == 3
    white = (data.train_images == 255).all(axis=(1, 2, 3)).sum() + (data.test_images == 255).all(axis=(1, 2, 3)).sum()
    assert white == 2  # 16 bits of white are 8 bits of white
    with pytest.warns(UserWarning, match="4 of 10 images are in colour and were converted to grey"):
        assert load_dataset("folder", path=tmp_path / "m", channels=1).spec.channels == 1


def test_a_grey_folder_is_read_as_rgb_and_said(tmp_path):
    for i in range(20):
        picture(tmp_path / "m" / "ab"[i % 2] / f"{i}.png", (8, 8), "L")
    with pytest.warns(UserWarning, match=r"all 20 images are grey and are read as RGB.*--config\.data\.channels=1"):
        assert load_dataset("folder", path=tmp_path / "m").spec.channels == 3


def test_files_of_16_bits_take_a_declared_range(tmp_path):
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64
    for i in range(12):
        (tmp_path / "m" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels + i).save(tmp_path / "m" / "ab"[i % 2] / f"{i}.png")
    path, options = tmp_path / "m", {"channels": 1, "test_fraction": 0.4}
    with pytest.warns(UserWarning, match="nearly black"):
        load_dataset("folder", path=path, **options)
    data = load_dataset("folder", path=path, value_range="0..4096", **options)
    wanted = np.rint(levels / 4096 * 255)
    every = np.concatenate([data.train_images, data.test_images])
    assert any((x[..., 0] == wanted).all() for x in every)
    with pytest.raises(UserError, match=r"a/0\.png has the value \d+, outside of 0\.\.1024.*value_range=0\.\.65535"):
        load_dataset("folder", path=path, value_range="0..1024", **options)


def test_folders_name_the_classes_also_those_without_an_image(tmp_path):
    root = tmp_path / "m"
    for i in range(12):
        picture(root / "ab"[i % 2] / f"{i}.png", (8, 8))
    (root / "c").mkdir()
    with pytest.warns(UserWarning, match=r"1 of 3 classes have no training image \('c'\)"):
        assert load_dataset("folder", path=root).class_names == ("a", "b", "c")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    with pytest.warns(UserWarning, match="'c'"):
        assert load_dataset("folder", path=tmp_path / "m.zip").class_names == ("a", "b", "c")
    with pytest.warns(UserWarning, match="'d'"):
        data = load_dataset("folder", path=root, classes="d,c,b,a")
    assert data.class_names == ("d", "c", "b", "a")
    assert set(data.train_labels.tolist()) == {2, 3}
    for declared, words in (("a,b", "'c', which is not among"), ("2", "has 3 classes")):
        with pytest.raises(UserError, match=words) as error:
            load_dataset("folder", path=root, classes=declared)
        assert "\n" not in str(error.value)


def test_folders_that_cannot_be_used_are_refused_in_one_line(tree, tmp_path):
    def message(path, **kwargs):
        with pytest.raises(UserError) as error:
            load_dataset("folder", path=path, **kwargs)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "image_size" in message(tree)  # 20x14 is not square
    picture(tree / "cat" / "big.png", (30, 30))
    assert "differ in size" in message(tree)
    (tree / "dog" / "bad.png").write_bytes((tree / "cat" / "big.png").read_bytes()[:200])
    assert "dog/bad.png" in message(tree, image_size=16)
    (tree / "dog" / "bad.png").unlink()
    picture(tree / "loose.png")
    assert "loose.png" in message(tree, image_size=16)
    (tmp_path / "empty").mkdir()
    assert "no image" in message(tmp_path / "empty")
    (tmp_path / "x.zip").write_bytes(b"rubbish")
    assert "x.zip" in message(tmp_path / "x.zip")


@pytest.fixture
def celeba(tmp_path):
    lines, parts = [], []
    for i in range(1, 13):
        picture(tmp_path / "img_align_celeba" / f"{i:06d}.jpg", (178, 218))
        lines.append(f"{i:06d}.jpg  {1 if i % 2 else -1} {1 if i % 3 else -1}")
        parts.append(f"{i:06d}.jpg {0 if i <= 6 else 1 if i <= 8 else 2}")
    (tmp_path / "list_attr_celeba.txt").write_text("12\nMale Smiling\n" + "\n".join(lines) + "\n")
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return tmp_path


@pytest.mark.parametrize("size", [32, 64])
def test_celeba_has_its_own_split_and_labels_by_attribute(celeba, size):
    data = load_dataset("celeba", path=celeba, attribute="Smiling", image_size=size)
    assert data.train_images.shape == (6, size, size, 3)
    assert data.test_images.shape == (4, size, size, 3)  # the validation part is left out
    assert data.train_labels.tolist() == [1, 1, 0, 1, 1, 0]
    assert data.class_names == ("not Smiling", "Smiling")
    assert load_dataset("celeba", path=celeba).train_labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_celeba_that_cannot_be_used_is_refused_in_one_line(celeba):
    def message(**kwargs):
        with pytest.raises(UserError) as error:
            load_dataset("celeba", path=celeba, **kwargs)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "Smiling" in message(attribute="smilin")
    (celeba / "img_align_celeba/000003.jpg").write_bytes(b"rubbish")
    assert "000003.jpg" in message()
    (celeba / "img_align_celeba/000003.jpg").unlink()
    assert "000003.jpg" in message()
    (celeba / "list_eval_partition.txt").write_text("000001.jpg 7\n")
    assert "line 1" in message()
    (celeba / "list_attr_celeba.txt").unlink()
    assert "list_attr_celeba.txt" in message()
