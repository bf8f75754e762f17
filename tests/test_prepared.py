"""Data that stay on disk: the same images, the same releases bit for bit, and refusals in one line."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_contract as contracts
from flax.serialization import msgpack_restore
from test_groups import IMAGES, LABELS, MOST, OF, celeba, folder

from efsgd_jax import UserError, default_config, load_dataset
from efsgd_jax.cli.main import main
from efsgd_jax.privacy import FullBatchMechanism, stored
from efsgd_jax.privacy.stored import Stored
from efsgd_jax.privacy.sum_terms import OuterSum, SquareSum, VectorSum, whole_factor
from efsgd_jax.privacy.units import Units
from efsgd_jax.runs.fit import fit
from efsgd_jax.runs.prepare import prepare_data
from efsgd_jax.training import views


@pytest.fixture
def in_small_parts(monkeypatch):
    """Many chunks, the last of them not full."""
    monkeypatch.setattr(stored, "CHUNK_BYTES", 700 * 64)
    monkeypatch.setattr(views, "DISK_CHUNK", views.VIEW_CHUNK)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "digits"
    prepare_data(default_config(), out, progress=False)
    return out


def on_disk(config, path):
    config.data.update(name="prepared", path=str(path))
    return config


METHODS = ["TestEfsgdMixture"]  # it has the mixture's phases, too
SLOW = ["TestGaussianMixture", "TestDistilledSet", "TestBornMachine", "TestPearl", "TestEfsgdGan"]
SLOW += ["TestPrivateDiffusion", "TestP3gm"]


@pytest.mark.parametrize("name", [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_what_is_released_is_that_of_images_in_memory(name, prepared, in_small_parts, tmp_path):
    contract = getattr(contracts, name)

    def released(config, directory):
        for group, values in contract.changes.items():
            config[group].update(values)
        config.privacy.update(epsilon=20.0, delta=1e-3)
        config.train.seed = 3
        fit(config, directory, progress=False)
        assert not [path for path in (directory / "private").iterdir() if path.name.startswith("views")]
        return (directory / "release/generator.msgpack").read_bytes()

    in_memory = released(default_config(contract.method), tmp_path / "memory")
    from_disk = released(on_disk(default_config(contract.method), prepared), tmp_path / "disk")
    if name == "TestDistilledSet":  # its sums are equal; the compiler flags of these tests round floats after them
        for a, b in zip(*(jax.tree.leaves(msgpack_restore(x)) for x in (in_memory, from_disk)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    else:
        assert in_memory == from_disk


@pytest.mark.slow
def test_persons_are_units_on_disk_too(in_small_parts, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS, class_names=np.array(["a", "b"]), patients=OF)

    def config():
        config = default_config("efsgd_mixture")
        config.data.update(name="npz", path=str(path), groups="patients", images_per_group=MOST)
        config.privacy.update(epsilon=20.0, delta=1e-3)
        config.train.update(steps=2, expected_batch_size=16, seed=3)
        config.method.update(components=1, directions=5, microbatch_size=8, width=4, blocks=1)
        return config

    prepare_data(config(), tmp_path / "prepared", progress=False)
    fit(config(), tmp_path / "memory", progress=False)
    fit(on_disk(config(), tmp_path / "prepared"), tmp_path / "disk", progress=False)
    a, b = ((tmp_path / run / "release/generator.msgpack").read_bytes() for run in ("memory", "disk"))
    assert a == b


TERMS = [
    VectorSum(lambda r: r, 2.0, count_weight=3.0),
    SquareSum(lambda r: r, 2.0, weight=0.5),
    OuterSum(lambda r: whole_factor(r, 2.0), lambda r: 3 * r[:3], 2.0, 0.6),
]


@pytest.mark.parametrize("size", [1, 699, 700, 701, 2345])
def test_sums_in_parts_are_those_of_all_rows(size, monkeypatch):
    monkeypatch.setattr(stored, "CHUNK_BYTES", 700 * 16)
    rows = np.random.default_rng(size).normal(size=(size, 4)).astype(np.float32)
    mechanism = FullBatchMechanism(size, 1.0)

    @jax.jit
    def released(records):
        access = mechanism.open(records, jax.random.key(5), 0)
        access.private_mean("mean", lambda r: r[0])
        sums = access.release(TERMS[:2], group=lambda r: jnp.where(r[0] > 0, 1, 0), num_groups=2, share=0.5)
        return sums.values, access.release(TERMS[2:], share=0.5).values, access.private_metrics()["mean"]

    *one, mean = released(jnp.asarray(rows))
    *parts, mean_of_parts = released(Stored(rows))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(parts), strict=True))
    assert float(mean) == pytest.approx(float(mean_of_parts), rel=1e-5)


def test_units_on_disk_are_read_by_their_index():
    rows, index = np.arange(20).reshape(10, 2), np.array([[3, 4], [7, 7]])
    units = Units(Stored(rows, index), jnp.array([[True, True], [True, False]]))
    found = jax.jit(lambda i: stored.rows_of(units, i))(jnp.array([1, 0]))
    assert found.rows.tolist() == rows[index[[1, 0]]].tolist()
    assert found.present.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("source", ["folder", "folder with groups", "celeba", "npz", "digits in colour"])
def test_every_source_is_prepared_as_it_is_read(source, tmp_path):
    options = {"image_size": 6, "channels": 1}
    if source.startswith("folder"):
        grouped = "groups" in source
        path, name = folder(tmp_path / "images", groups=grouped), "folder"
        options |= {"groups": "folder"} if grouped else {}
    elif source == "celeba":
        path, name = celeba(tmp_path / "images", identities=False), "celeba"
    elif source == "npz":
        path, name = tmp_path / "data.npz", "npz"
        np.savez(path, x=IMAGES / np.float32(255), y=LABELS)
        options |= {"classes": "a,b"}
    else:
        path, name, options = None, "digits", {"image_size": 10, "channels": 3}
    config = default_config()
    config.data.update(name=name, path=str(path or ""), **options)
    made = prepare_data(config, tmp_path / "prepared", progress=False)
    there, here = load_dataset(name, path=path, **options), load_dataset("prepared", path=made.path, **options)
    for part in ("train_images", "train_labels", "test_images", "test_labels", "train_groups"):
        a, b = getattr(there, part), getattr(here, part)
        assert (a is None and b is None) or ((a == b).all() and a.dtype == b.dtype)
    assert there.class_names == here.class_names
    assert there.source == here.source
    assert there.fingerprint() == here.fingerprint() == made.sha256
    assert here.on_disk
    assert not there.on_disk


def test_what_is_prepared_is_private_and_says_so(prepared, capsys, tmp_path):
    assert main(["prepare", "--config=preset:digits", f"--out={tmp_path / 'a'}", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["train"] == 1422
    assert (prepared.stat().st_mode & 0o777, {p.stat().st_mode & 0o777 for p in prepared.iterdir()}) == (0o700, {0o600})
    assert "nothing here may be published" in (prepared / "PRIVATE.txt").read_text()
    assert main(["prepare", "--config=preset:digits", f"--out={tmp_path / 'a'}"]) == 2
    assert "exists; name a new directory" in capsys.readouterr().err


def damaged(directory, what):
    if what == "no description":
        (directory / "prepared.json").unlink()
    elif what == "a broken description":
        (directory / "prepared.json").write_text("{")
    elif what == "a missing array":
        (directory / "test_labels.npy").unlink()
    elif what == "a truncated array":
        path = directory / "train_images.npy"
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "one other pixel":
        array = np.load(directory / "train_images.npy", mmap_mode="r+")
        array[7, 3, 3, 0] ^= 1
        array.flush()
    elif what == "a label beyond the classes":
        array = np.load(directory / "train_labels.npy")
        array[3] = 10
        np.save(directory / "train_labels.npy", array)
    elif what == "a class without a name":
        described = json.loads((directory / "prepared.json").read_text())
        (directory / "prepared.json").write_text(json.dumps({**described, "class_names": [1] * 10}))
    elif what == "no settings":
        described = json.loads((directory / "prepared.json").read_text())
        (directory / "prepared.json").write_text(json.dumps({k: v for k, v in described.items() if k != "settings"}))
    elif what == "groups with a gap":
        np.save(directory / "train_groups.npy", 2 * np.arange(1422, dtype=np.int32))
    elif what == "larger test images":
        np.save(directory / "test_images.npy", np.zeros((375, 9, 9, 1), np.uint8))
    elif what == "an array of objects":
        np.save(directory / "train_labels.npy", np.array([{}] * 1422), allow_pickle=True)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no description", "has no prepared.json"),
        ("a broken description", "is damaged"),
        ("a missing array", "missing or damaged"),
        ("a truncated array", "missing or damaged"),
        ("one other pixel", "have changed since they were prepared"),
        ("a label beyond the classes", "labels beyond the classes"),
        ("an array of objects", "missing or damaged"),
        ("a class without a name", "a class has no name"),
        ("no settings", "is damaged"),
        ("groups with a gap", "not one group for each image"),
        ("larger test images", "not of one size"),
    ],
)
def test_damage_is_one_line(what, words, prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")  # with other times, so that the arrays are read and hashed
    assert load_dataset("prepared", path=copy).fingerprint() == load_dataset("prepared", path=prepared).fingerprint()
    damaged(copy, what)
    with pytest.raises(UserError, match=words) as error:
        load_dataset("prepared", path=copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("image_size", 16), ("channels", 3), ("classes", "a,b"), ("groups", "x")])
def test_other_settings_are_refused(key, value, prepared):
    with pytest.raises(UserError, match=f"was prepared with {key}="):
        load_dataset("prepared", path=prepared, **{key: value})


def test_methods_that_need_all_images_say_so(prepared, tmp_path):
    with pytest.raises(UserError, match="sanitized_gan needs all images in memory"):
        fit(on_disk(default_config("sanitized_gan"), prepared), tmp_path / "run", progress=False)
    with pytest.raises(UserError, match="prepared already"):
        prepare_data(on_disk(default_config(), prepared), tmp_path / "again")


def test_a_preparation_that_was_killed_leaves_no_data_set(tmp_path):
    root, out = tmp_path / "images", tmp_path / "out"
    folder(root)
    command = [sys.executable, "-m", "efsgd_jax", "prepare", "--config=preset:folder", f"--out={out}"]
    command += ["--config.data.name=folder", f"--config.data.path={root}", "--config.data.image_size=900"]
    unfinished = tmp_path / ".out.preparing"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None and not list(unfinished.glob("scratch/*")):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert unfinished.exists()
    assert not out.exists()
    config = default_config()
    config.data.update(name="folder", path=str(root), channels=1, image_size=8)
    prepare_data(config, out, progress=False)
    assert not unfinished.exists()
    assert load_dataset("prepared", path=out).on_disk


def test_a_full_disk_is_one_line(prepared, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    config = on_disk(default_config("gaussian_mixture"), prepared)
    config.method.update(components=1, directions=5)
    with pytest.raises(UserError, match="No space left on device"):
        fit(config, tmp_path / "run", progress=False)
    assert main(["prepare", "--config=preset:digits", f"--out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("rows", [[0], [9_999], [5, 6, 7, 2, 9_998, 9_999, 5], list(range(10_000)), []])
def test_rows_are_read_ahead_and_right(rows, tmp_path):
    values = np.arange(10_000 * 7, dtype=np.int32).reshape(10_000, 7)
    np.save(tmp_path / "a.npy", values)
    records = Stored(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert (records.read(np.array(rows, np.int32)) == values[np.array(rows, int)]).all()
    part = Stored(np.load(tmp_path / "a.npy", mmap_mode="r")[5000::2])
    some = [row % 2500 for row in rows]
    assert (part.read(np.array(some, np.int32)) == values[5000::2][np.array(some, int)]).all()


def test_arrays_that_do_not_belong_together_are_refused():
    """Otherwise the last label would stand for all that are missing."""
    with pytest.raises(ValueError, match=r"\[9, 10\] rows"):
        Stored((np.zeros((10, 2)), np.zeros(9)))
    with pytest.raises(ValueError, match="at least 1"):
        Stored(np.zeros((0, 2)))
    for index in ([[0, 10]], [[-1, 2]]):
        with pytest.raises(ValueError, match="names rows"):
            Stored(np.zeros((10, 2)), np.array(index))


def test_changed_labels_have_a_fingerprint_of_their_own(prepared):
    data = load_dataset("prepared", path=prepared)
    for changes in ({"train_labels": data.train_labels[::-1]}, {"train_images": data.train_images[:700]}):
        assert dataclasses.replace(data, **changes).fingerprint() != data.fingerprint()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, 0.0])
def test_a_record_moves_no_other_in_a_sum_by_parts(bad, monkeypatch):
    monkeypatch.setattr(stored, "CHUNK_BYTES", 100 * 16)
    rows = np.random.default_rng(1).normal(size=(350, 4)).astype(np.float32)
    mechanism = FullBatchMechanism(350, 0.0)

    @jax.jit
    def sums(records):
        return mechanism.open(records, jax.random.key(0), 0).release([VectorSum(lambda r: r, 2.0)]).values[0][0]

    with_bad, with_none = rows.copy(), rows.copy()
    with_bad[120], with_none[120] = bad, 0.0
    moved = np.linalg.norm(sums(Stored(with_bad)) - sums(Stored(with_none)))
    assert moved <= 2.0 * (1 + 1e-6)
    if not np.isfinite(bad) or bad == 0:
        assert moved == 0
