"""How a record is read, and on which side of the split it is, depends on that record alone.

Each source is read without and with one more record. Every other record must be the same to the last bit, in the same
order, with the same label and on the same side; or the data set with that record is refused, in one line.
"""

import csv
import functools
import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.datasets
from malformed import encode, idx_header, prepared
from odd_records import ARRAY_ROWS, DUPLICATE, FILES, ORDINARY, ROWS, WIDER_ROWS, Row
from PIL import Image

from efsgd_jax import load_dataset
from efsgd_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CLASSES = ("a", "b", "c")
LABELS = np.arange(24) % 2
# What an owner may have declared.
OPTIONS = [
    {"image_size": 8},
    {"image_size": 5, "channels": 1},
    {"image_size": 8, "channels": 3, "value_range": "0..255"},
    {},
]


def sides(data):
    """The records of each side, in order, and the public shape."""
    named = [
        [(image.tobytes(), data.class_names[label]) for image, label in zip(images, labels, strict=True)]
        for images, labels in (
            (data.train_images, data.train_labels),
            (data.test_images, data.test_labels),
        )
    ]
    return named, (data.spec, data.class_names)


def is_one_more(before, after):
    """Whether ``after`` is ``before`` with at most one more record in it, at any place."""
    if len(after) == len(before):
        return after == before
    at = next((i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y), len(before))
    return len(after) == len(before) + 1 and after[:at] + after[at + 1 :] == before


@functools.lru_cache(maxsize=16)
def without_it(source, before, options):
    """The sides of the data set without the further record, which many checks share."""
    return sides(load_dataset(source, path=before, **dict(options)))


def check(source, before, after, **options):
    """Whether the one with the record was read; fails if another record is not what it was.

    What is in ``before`` is read once, so that it must not be changed later; None is the bundled images.
    """
    read_once = without_it if before is not None else without_it.__wrapped__
    without, shape = read_once(source, before, tuple(options.items()))
    try:
        (found, new_shape) = sides(load_dataset(source, path=after, **options))
    except UserError as error:
        lines = str(error).splitlines()
    else:
        lines = []
    if lines:
        assert len(lines) == 1
        return False
    assert new_shape == shape
    assert all(is_one_more(x, y) for x, y in zip(without, found, strict=True))
    assert sum(map(len, found)) - sum(map(len, without)) in (0, 1)
    return True


def tree(layout):
    """Name -> bytes of two class folders of twelve images, a third one without any."""
    return {
        f"{layout[i % len(layout)]}{'ab'[i // len(layout) % 2]}/{i}.png": data
        for i, data in enumerate([DUPLICATE, *ORDINARY])
    }


def write_folder(root, content):
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(root, content):
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return root.with_suffix(".zip")


LAYOUTS = {"flat": [""], "wrapped": ["all/"], "split": ["train/", "test/"]}


@pytest.mark.parametrize("kind", [f.kind for f in FILES])
@pytest.mark.parametrize(
    ("write", "layout"),
    [
        *((write_folder, layout) for layout in LAYOUTS),
        (write_zip, "wrapped"),
        *(pytest.param(write_zip, layout, marks=pytest.mark.slow) for layout in ("flat", "split")),
    ],
)
def test_one_file_more_moves_no_other(write, layout, kind, tmp_path):
    record = next(f for f in FILES if f.kind == kind)
    parts = LAYOUTS[layout]
    content = {**tree(parts), **{f"{part}c/note.txt": b"an empty class" for part in parts}}
    before = write(tmp_path / "before", content)
    for i, part in enumerate(parts):
        after = write(tmp_path / f"after{i}", {**content, f"{part}{record.label}/{record.name}": record.data})
        read = [check("folder", before, after, **options) for options in OPTIONS]
        declared = [check("folder", before, after, classes="c,a,b,d", **options) for options in OPTIONS[:2]]
        if kind == "ordinary":
            assert all(read)
            assert all(declared)


def write_listed(root, content, form="csv"):
    """The files in one directory, and a list of their labels, the folders of ``content``."""
    flat = {name.replace("/", "-"): (data, name.split("/")[0]) for name, data in content.items()}
    write_folder(root, {name: data for name, (data, _) in flat.items()})
    with (root / f"labels.{form}").open("w", newline="") as file:
        if form == "csv":
            csv.writer(file).writerows([("file", "label"), *((name, label) for name, (_, label) in flat.items())])
        else:
            file.writelines(json.dumps({"file": n, "label": label}) + "\n" for n, (_, label) in flat.items())
    return root


def write_parquet(root, content):
    root.mkdir()
    labels = [name.split("/")[0] for name in content]
    pq.write_table(pa.table({"image": list(content.values()), "label": labels}), root / "0.parquet")
    return root


@pytest.mark.parametrize("kind", [f.kind for f in FILES])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_one_listed_image_more_moves_no_other(form, kind, tmp_path):
    record = next(f for f in FILES if f.kind == kind)
    odd = {f"{record.label}/{record.name}": record.data}
    write = write_parquet if form == "parquet" else functools.partial(write_listed, form=form)
    source = "parquet" if form == "parquet" else "folder"
    declared = {"classes": "a,b,c", **({} if form == "parquet" else {"labels": f"labels.{form}"})}
    before = write(tmp_path / "before", tree([""]))
    for place, content in (("first", {**odd, **tree([""])}), ("last", {**tree([""]), **odd})):
        read = [check(source, before, write(tmp_path / place, content), **declared, **OPTIONS[0])]
        assert all(read) or kind != "ordinary"


def test_one_line_with_other_keys_moves_no_other(tmp_path):
    before = write_listed(tmp_path / "before", tree([""]), "jsonl")
    after = write_listed(tmp_path / "after", {**tree([""]), "a/5a.png": FILES[0].data}, "jsonl")
    lines = (after / "labels.jsonl").read_text().splitlines()
    other = json.dumps({"image": "a-5a.png", "class": "a", "file_number": 3})
    for order in ([*lines[:-1], other], [other, *lines[:-1]]):
        (after / "labels.jsonl").write_text("\n".join(order))
        assert check("folder", before, after, classes="a,b,c", labels="labels.jsonl", image_size=8)


def test_a_folder_that_was_not_declared_is_refused(tmp_path):
    before = write_folder(tmp_path / "before", tree([""]))
    after = write_folder(tmp_path / "after", {**tree([""]), "0/0.png": ORDINARY[0][:-1] + b"x"})
    assert check("folder", before, after, classes="a,b") is False
    assert check("folder", before, after, classes="2") is False


def write_celeba(root, faces):
    """``faces``: name -> bytes, label and partition."""
    write_folder(root / "img_align_celeba", {name: data for name, (data, _, _) in faces.items()})
    lines = [f"{name} {1 if label else -1}" for name, (_, label, _) in faces.items()]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(len(faces)), "Male", *lines]) + "\n")
    (root / "list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for name, (*_, part) in faces.items()))
    return root


@pytest.mark.parametrize("kind", [f.kind for f in FILES])
def test_one_face_more_moves_no_other(kind, tmp_path):
    record = next(f for f in FILES if f.kind == kind)
    faces = {f"{i}.jpg": (data, i % 2, 2 * (i % 3 == 0)) for i, data in enumerate([DUPLICATE, *ORDINARY])}
    before = write_celeba(tmp_path / "before", faces)
    for part in (0, 1, 2):
        odd = {f"odd{record.suffix}": (record.data, 1, part)}
        for place, after in (("first", {**odd, **faces}), ("last", {**faces, **odd})):
            path = write_celeba(tmp_path / f"{place}{part}", after)
            read = [check("celeba", before, path, **options) for options in OPTIONS]
            assert all(read) or kind != "ordinary"


def with_row(images, labels, row):
    at = len(images) if row.at < 0 else row.at
    wide = images.astype(np.result_type(images, row.image))
    return np.concatenate([wide[:at], row.image[None].astype(wide.dtype), wide[at:]]), np.insert(labels, at, row.label)


def write_npz(path, images, labels, test=None, **more):
    x, y = test or (None, None)
    arrays = {"x_train": images, "y_train": labels, "x_test": x, "y_test": y, **more}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def unit(row):
    """A row of bytes as floats in [0, 1]."""
    return row if row.image.dtype.kind == "f" else row._replace(image=row.image / 255.0)


BASES = {
    "bytes": (ROWS, [*ARRAY_ROWS, *WIDER_ROWS], OPTIONS),
    "whole numbers": (ROWS.astype(np.int32), [*ARRAY_ROWS, *WIDER_ROWS], OPTIONS),
    "unit floats": (ROWS / 255.0, [unit(r) for r in [*ARRAY_ROWS, *WIDER_ROWS]], [{}, {"image_size": 5}]),
    "unit floats, declared": (ROWS / 255.0, [unit(r) for r in [*ARRAY_ROWS, *WIDER_ROWS]], [{"value_range": "0..1"}]),
    "single precision": ((ROWS / 255.0).astype(np.float32), [unit(r) for r in WIDER_ROWS], [{"value_range": "-1..1"}]),
    "floats of bytes": (ROWS.astype(float), [*ARRAY_ROWS, *WIDER_ROWS], [{"value_range": "0..255"}]),
    "masks": (ROWS // 128, [*ARRAY_ROWS, *WIDER_ROWS[:3]], [{}, {"value_range": "0..1"}]),
    "sixteen levels": (ROWS // 16, ARRAY_ROWS, [{}, {"value_range": "0..16"}]),
    "deep": (ROWS.astype(np.uint16) * 257, [*ARRAY_ROWS, *WIDER_ROWS], [{"value_range": "0..65535"}]),
    "colour": (np.stack([ROWS, ROWS // 2, ROWS // 3], -1), ARRAY_ROWS, OPTIONS),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("source", ["npz", "mnist", "fashion_mnist"])
def test_one_row_more_moves_no_other(source, base, tmp_path):
    images, rows, choices = BASES[base]
    named = {"class_names": np.array(CLASSES)} if source == "npz" else {}
    held_out = images[:5], LABELS[:5]
    before = write_npz(tmp_path / "before.npz", images, LABELS, **named)
    before_test = write_npz(tmp_path / "before_test.npz", images, LABELS, held_out, **named)
    read = {}
    for row in rows:
        odd = row
        if images.ndim == 4:
            odd = row._replace(image=np.repeat(row.image[..., None], 3, axis=-1))
        changed = with_row(images, LABELS, odd)
        for options in choices:
            after = write_npz(tmp_path / "after.npz", *changed, **named)
            read[row.kind] = check(source, before, after, **options)
            check(source, before_test, write_npz(tmp_path / "after.npz", *changed, held_out, **named), **options)
            changed_test = with_row(*held_out, odd._replace(at=min(odd.at, 4)))
            check(
                source, before_test, write_npz(tmp_path / "after.npz", images, LABELS, changed_test, **named), **options
            )
    assert any(read.values())
    assert not any(read.get(f"one pixel {x}", False) for x in ("of infinity", "without a number", "of 1e30"))


@pytest.mark.parametrize("row", ARRAY_ROWS, ids=lambda row: row.kind)
def test_one_row_more_of_idx_moves_no_other(row, tmp_path):
    def write(name, images, labels):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train-images-idx3-ubyte").write_bytes(idx_header(8, *images.shape) + images.tobytes())
        (folder / "train-labels-idx1-ubyte").write_bytes(idx_header(8, len(labels)) + labels.astype("u1").tobytes())
        return folder

    before, after = write("before", ROWS, LABELS), write("after", *with_row(ROWS, LABELS, row))
    for options in OPTIONS:
        known = row.label in (0, 1, 2)
        assert check("idx", before, after, classes="3", **options) == known
        check("mnist", before, after, **options)


@pytest.mark.parametrize("row", [*ARRAY_ROWS, Row("16", np.full((8, 8), 16.0)), *WIDER_ROWS], ids=lambda row: row.kind)
def test_one_digit_more_or_replaced_moves_no_other(row, monkeypatch):
    """The bundled images with one more, or with one that is replaced."""
    images, labels = (x[:200] for x in sklearn.datasets.load_digits(return_X_y=True))
    rows = {"before": (images, labels)}
    rows["after"] = with_row(images.reshape(-1, 8, 8), labels, row)
    chosen = ["before", "after"]
    monkeypatch.setattr(
        "sklearn.datasets.load_digits", lambda return_X_y: (lambda x, y: (x.reshape(-1, 64), y))(*rows[chosen.pop(0)])
    )
    check("digits", None, None)


@pytest.mark.parametrize("row", ARRAY_ROWS[:10], ids=lambda row: row.kind)
@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_one_tfds_record_more_moves_no_other(row, splits, tmp_path):
    images, labels = ROWS[:12], LABELS[:12]

    def write(name, images, labels):
        (tmp_path / name).mkdir()
        pngs = [encode(Image.fromarray(x)) for x in images]
        make = prepared(image=pngs.__getitem__, splits=splits, label=lambda i: int(labels[i]), train_size=len(images))
        return make(tmp_path / name)

    at = max(row.at, 4) if row.at >= 0 else -1  # the test split is made of the first four
    changed = with_row(images, labels, row._replace(label=row.label % 2, at=at))
    before, after = write("before", images, labels), write("after", *changed)
    assert check("tfds:toy", before, after, test_fraction=0.3)
    assert check("tfds:toy", before, after, image_size=5, channels=3, test_fraction=0.3)


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_removing_or_changing_a_record_moves_no_other(write, tmp_path):
    content = tree([""])
    whole = write(tmp_path / "whole", content)
    for i, name in enumerate(content):
        less = write(tmp_path / f"less{i}", {k: v for k, v in content.items() if k != name})
        assert check("folder", less, whole)


def test_sides_depend_on_neither_size_nor_channels_nor_labels(tmp_path):
    path = write_npz(tmp_path / "a.npz", ROWS, LABELS, class_names=np.array(CLASSES))
    known = {row.tobytes(): i for i, row in enumerate(ROWS)}
    plain = load_dataset("npz", path=path)
    held_out = [known[x.tobytes()] for x in plain.test_images]
    assert held_out == sorted(held_out)
    for options in OPTIONS:
        assert load_dataset("npz", path=path, **options).test_labels.tolist() == LABELS[held_out].tolist()
    other = write_npz(tmp_path / "b.npz", ROWS, 1 - LABELS, class_names=np.array(CLASSES))
    np.testing.assert_array_equal(load_dataset("npz", path=other).test_images, plain.test_images)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.7])
def test_the_share_that_is_held_out_is_the_one_asked_for(fraction):
    data = load_dataset("digits", test_fraction=fraction)
    deviation = np.sqrt(1797 * fraction * (1 - fraction))
    assert abs(len(data.test_labels) - 1797 * fraction) < 4 * deviation


def test_the_odd_records_are_of_many_kinds():
    assert len(FILES) >= 30
    assert len({f.kind for f in FILES}) == len(FILES)
    assert len(ARRAY_ROWS) + len(WIDER_ROWS) >= 20
