"""What people have tried: each input is made, given to the product, and its result judged.

``pytest -s tests/test_cases_of_users.py`` prints input, result and verdict.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from layouts import HEIC, dicom, flat, medmnist, plain_npz, stylegan, zipped
from malformed import IMAGES, LABELS, OTHERS, PNG, arrays, encode, header_of_a_huge_png, pictures
from PIL import Image

from efsgd_jax import default_config, evaluate_samples, fit, load_dataset, sample
from efsgd_jax.cli.main import main
from efsgd_jax.config import override, with_method
from efsgd_jax.errors import UserError
from efsgd_jax.privacy import clipped_grad, error_feedback_aggregate

ROWS = []


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    print("\n| input | result | verdict |\n|---|---|---|")
    for row in ROWS:
        print(f"| {' | '.join(row)} |")


def judged(given, result, right):
    ROWS.append((given, " ".join(str(result).split())[:140], "right" if right else "WRONG"))
    assert right, result


def refused(call):
    """The one line with which ``call`` is refused."""
    with pytest.raises(UserError) as found:
        call()
    text = str(found.value)
    assert "\n" not in text
    return text


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, " ".join(str(w.message) for w in caught)


def command(*argv):
    """Status, standard output and standard error of ``efsgd``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(map(str, argv)))
    return status, out.getvalue(), err.getvalue()


def folder(root, *, extra=(), colour=True):
    for i, data in enumerate([PNG, *OTHERS]):
        place = root / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        grey = encode(Image.open(io.BytesIO(data)).convert("L"))
        (place / f"{i}.png").write_bytes(data if colour else grey)
    for name, data in extra:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on twelve classes."""
    root = tmp_path_factory.mktemp("cases")
    names, labels = np.array([str(i) for i in range(12)]), np.arange(240) % 12
    images = np.random.default_rng(0).integers(0, 256, (240, 8, 8), dtype=np.uint8)
    np.savez(root / "data.npz", x_train=images, y_train=labels, class_names=names)
    config = default_config("gaussian_mixture")
    config.data.update(name="npz", path=str(root / "data.npz"))
    config.privacy.update(epsilon=20.0, delta=1e-4)
    config.method.update(components=1, directions=5, candidates=1)
    fit(config, root / "run", progress=False)
    return root


# One record decides how others are read.


def test_one_pixel_of_two(tmp_path):
    images = IMAGES / 255.0
    images[3, 2, 2] = 2.0
    text = refused(lambda: load_dataset("npz", path=arrays(x_train=images)(tmp_path)))
    judged("float npz with one pixel of 2.0", text, "the value 2 in image 3" in text)


def test_one_colour_file_in_a_grey_folder(tmp_path):
    root = folder(tmp_path / "p", colour=False, extra=[("a/colour.png", PNG)])
    data, text = warned(lambda: load_dataset("folder", path=root, channels=1))
    right = data.spec.channels == 1 and "1 of 17 images are in colour and were converted to grey" in text
    judged("grey folder, one colour file", text, right)


def test_a_class_without_an_image(tmp_path):
    root = folder(tmp_path / "p", extra=[("c/note.txt", b"")])
    data, text = warned(lambda: load_dataset("folder", path=root))
    judged("class folder without an image", text, data.class_names == ("a", "b", "c") and "'c'" in text)


def test_an_image_more_moves_no_other(tmp_path):
    before = load_dataset("folder", path=folder(tmp_path / "p"))
    after = load_dataset("folder", path=folder(tmp_path / "q", extra=[("a/!.png", encode(Image.fromarray(IMAGES[0])))]))
    kept = {x.tobytes() for x in before.train_images} <= {x.tobytes() for x in after.train_images}
    tested = {x.tobytes() for x in before.test_images} <= {x.tobytes() for x in after.test_images}
    judged("one image more", f"train kept {kept}, test kept {tested}", kept and tested)


def test_the_relation_under_which_n_is_public(run):
    relation = json.loads((run / "run/release/privacy.json").read_text())["neighbouring_relation"]
    judged("N in privacy.json", relation, "the number of records N is public" in relation)


# Loaders.


def test_stylegan(tmp_path):
    data = load_dataset("folder", path=zipped(stylegan())(tmp_path), classes="2")
    judged("StyleGAN zip", data, data.class_names == ("0", "1") and len(data.train_labels) > 4)


def test_zeros_and_ones(tmp_path):
    make = arrays(x_train=IMAGES // 128, x_test=IMAGES[:4] // 128)
    _, text = warned(lambda: load_dataset("npz", path=make(tmp_path)))
    data = load_dataset("npz", path=make(tmp_path), value_range="0..1")
    judged("pixels 0 and 1", text, "--config.data.value_range=0..1" in text and data.train_images.max() == 255)


def test_heic_dicom_and_files_without_an_extension(tmp_path):
    extra = [(f"a/{i}.heic", HEIC) for i in range(3)] + [(f"b/{i}.dcm", dicom()) for i in range(3)]
    root = folder(tmp_path / "p", extra=[*extra, *((f"a/x{i}", b"data") for i in range(30))])
    data, text = warned(lambda: load_dataset("folder", path=root))
    total = len(data.train_labels) + len(data.test_labels)
    judged("HEIC, DICOM, no extension", text, total == 22 and "30 without an extension" in text)


def test_a_file_linked_into_two_classes(tmp_path):
    root = folder(tmp_path / "p")
    (root / "b/link.png").hardlink_to(root / "a/0.png")
    text = refused(lambda: load_dataset("folder", path=root))
    judged("hard link into another class", text, "again, by a link" in text)


def test_a_data_set_that_is_printed():
    text = repr(load_dataset("digits"))
    judged("a data set, printed", text, "1422 training" in text and "array" not in text and len(text) < 300)


def test_other_archives(tmp_path):
    for name, make in (
        ("MedMNIST npz", medmnist()),
        ("npz of x and y, channels first", plain_npz(x=np.repeat(IMAGES[:, None], 3, 1) / 255.0, y=LABELS)),
        ("npz of arr_0 and arr_1", plain_npz(arr_0=np.tile(IMAGES, (3, 1, 1)), arr_1=np.tile(LABELS, 3))),
    ):
        place = tmp_path / name.replace(" ", "_")
        place.mkdir()
        data = load_dataset("npz", path=make(place), classes="2", test_fraction=0.4)
        judged(name, data, data.spec.num_classes == 2)


@pytest.mark.parametrize("side", [9, 27])
def test_a_mixture_at_odd_sizes(side, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, side, side), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x_train=images, y_train=np.arange(60) % 2, class_names=np.array(["a", "b"]))
    config = default_config("gaussian_mixture")
    config.data.update(name="npz", path=str(tmp_path / "d.npz"))
    config.privacy.update(epsilon=20.0, delta=1e-3)
    config.method.update(components=1, directions=3, candidates=1)
    result = fit(config, tmp_path / "run", progress=False)
    judged(f"mixture at {side}x{side}", result.epsilon, result.epsilon <= 20)


def test_data_that_changed_under_a_run(run, tmp_path):
    with np.load(run / "data.npz") as file:
        kept = dict(file)
    config = default_config("gaussian_mixture")
    config.data.update(name="npz", path=str(run / "data.npz"))
    config.privacy.update(epsilon=20.0, delta=1e-4)
    config.method.update(components=1, directions=5, candidates=1)
    try:
        np.savez(run / "data.npz", **{**kept, "x_train": 255 - kept["x_train"]})
        text = refused(lambda: fit(config, run / "run", progress=False))
    finally:
        np.savez(run / "data.npz", **kept)
    digest = load_dataset("npz", path=run / "data.npz").fingerprint()
    judged("data changed under a run", text, "other data" in text and digest[:8] not in text)


def test_an_empty_and_a_huge_png(tmp_path):
    empty = refused(lambda: load_dataset("folder", path=pictures("8.png", b"")(tmp_path / "p")))
    judged("0-byte PNG", empty, "b/8.png is empty" in empty)
    huge = refused(lambda: load_dataset("folder", path=pictures("8.png", header_of_a_huge_png())(tmp_path / "q")))
    judged("huge PNG", huge, "too many for one image" in huge and "make it smaller" in huge)


# Commands.


@pytest.mark.parametrize(
    ("flags", "largest"),
    [
        ("--dataset_size=60000 --expected_batch_size=600 --steps=1000 --epsilon=0.03", 29.3),
        ("--dataset_size=60000 --expected_batch_size=600 --steps=1000 --epsilon=0.02", 42.4),
        ("--dataset_size=60000 --expected_batch_size=256 --steps=2400 --epsilon=0.1", 6.67),
        ("--dataset_size=60000 --expected_batch_size=600 --steps=1000 --epsilon=0.05", 18.6),
    ],
)
def test_small_epsilons_are_solved_without_waste(flags, largest):
    status, out, err = command("privacy", *flags.split())
    sigma = float(out.split("noise multiplier")[1].split()[0]) if status == 0 else float("nan")
    judged(f"privacy {flags}", f"noise multiplier {sigma} {err}", sigma <= largest)


def test_another_method_for_a_folder():
    config = default_config("efsgd_gan")
    config.data.update(name="folder", path="pictures")
    changed = with_method(config, "gaussian_mixture")
    right = changed.data.path == "pictures" and "adam_b1" not in changed.method
    judged("--config.method.name=gaussian_mixture", sorted(changed.method)[:4], right)


def test_flags_as_people_write_them(tmp_path):
    status, _, err = command(
        "train", "--config=preset:digits", f"--workdir={tmp_path}/r", "--config.privacy.epsilon", "nine"
    )
    judged("--config.privacy.epsilon nine", err, status == 2 and "privacy.epsilon" in err and err.count("\n") == 1)
    text = refused(lambda: override(default_config(), "method.learning_rat", "1"))
    judged("a misspelt key", text, "did you mean" in text)
    status, out, err = command("privacy", "--dataset_size=1000", "--config=preset:digits",
                               "--config.privacy.epsilon=inf")  # fmt: skip
    judged("privacy at epsilon inf", out.splitlines()[0], status == 0 and "inf" in out)


def test_completion_in_a_pipe_that_closes():
    program = f"{sys.executable} -m efsgd_jax completion bash | head -1"
    found = subprocess.run(program, shell=True, capture_output=True, text=True, timeout=120)
    judged("completion bash | head", found.stderr or found.stdout, found.returncode == 0 and not found.stderr)


def test_exported_pngs_of_twelve_classes_are_read_back(run, tmp_path):
    drawn = sample(run / "run", 240, out=tmp_path / "out", formats=("png",))
    data = load_dataset("folder", path=tmp_path / "out/png", channels=1)
    known = {x.tobytes(): y for x, y in zip(drawn.images, drawn.labels, strict=True)}
    right = all(known[x.tobytes()] == y for x, y in zip(data.train_images, data.train_labels, strict=True))
    judged("PNG export of 12 classes, read back", data.class_names, right)


def test_exported_pngs_are_scored(run, tmp_path, monkeypatch):
    monkeypatch.setenv("EFSGD_JAX_DATA", str(tmp_path / "cache"))
    sample(run / "run", 240, out=tmp_path / "out", formats=("png",))
    config = default_config("gaussian_mixture")
    config.data.update(name="npz", path=str(run / "data.npz"))
    scores = evaluate_samples(tmp_path / "out", config, metrics=("utility",), classifiers=("logistic_regression",))
    judged("--samples=DIR", scores.num_images, scores.num_images == 240)


def test_scores_of_twelve_images_say_what_they_are_worth(run, tmp_path, monkeypatch):
    monkeypatch.setenv("EFSGD_JAX_DATA", str(tmp_path / "cache"))
    sample(run / "run", 12, out=tmp_path / "out", formats=("npz",))
    config = default_config("gaussian_mixture")
    config.data.update(name="npz", path=str(run / "data.npz"))
    scores = evaluate_samples(tmp_path / "out/samples.npz", config, metrics=("fidelity",))
    text = " ".join(scores.remarks)
    judged("FID of 12 images", text, "12 images" in text)


def test_an_nnx_optimizer_takes_a_clipped_sum():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)
    total = clipped_grad(lambda p, x, key: (jnp.sum(nnx.merge(graph, p)(x) ** 2), None), 1.0)(
        params, jnp.ones((4, 3)), jax.random.split(jax.random.key(0), 4)
    )
    tx = error_feedback_aggregate(1.0, 0.0, jax.random.key(1), expected_batch_size=4, sampling="poisson")
    optimizer = nnx.Optimizer(model, optax.chain(tx, optax.sgd(0.1)), wrt=nnx.Param)
    try:
        optimizer.update(model, total)
    except (ValueError, TypeError, UserError) as error:
        judged("nnx.Optimizer.update(model, ClippedSum)", error, "nnx.split" in str(error))
    else:
        judged("nnx.Optimizer.update(model, ClippedSum)", "updated", True)


def test_parameters_that_are_numbers():
    loss = lambda p, x, key: (p["w"] * x, None)  # noqa: E731
    total = clipped_grad(loss, 1.0)({"w": 2.0}, jnp.ones(4), jax.random.split(jax.random.key(0), 4))
    judged(
        "a Python float as parameter", total.clipped_sum, float(total.clipped_sum["w"]) == pytest.approx(4, rel=1e-4)
    )


def test_a_checkout_that_is_not_installed(tmp_path):
    """With the package's directory alone on PYTHONPATH, and no metadata of an installation."""
    (tmp_path / "efsgd_jax").symlink_to(Path("efsgd_jax").resolve())
    (tmp_path / "configs").symlink_to(Path("configs").resolve())
    hide = "import importlib.metadata as m, sys; f = m.version\n" + (
        "def v(n):\n    if n == 'efsgd_jax': raise m.PackageNotFoundError(n)\n    return f(n)\nm.version = v\n"
        "from efsgd_jax.cli.train import main; sys.exit(main(sys.argv[1:]))\n"
    )
    flags = ["--config=configs/digits.py", "--config.train.steps=1", "--config.method.width=4", "--workdir=run"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-c", hide, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    software = json.loads((tmp_path / "run/release/privacy.json").read_text())["software"]
    judged("a checkout on PYTHONPATH", software, found.returncode == 0 and software["efsgd_jax"] == "not installed")


def test_images_beside_a_list_of_labels(tmp_path):
    lines = "file,label\n" + "".join(f"{i:02}.png,{'ab'[i % 2]}\n" for i in range(16))
    root = flat(("labels.csv", lines.encode()))(tmp_path)
    data = load_dataset("folder", path=root, labels="labels.csv", classes="a,b")
    judged("a list of labels beside images", data, data.class_names == ("a", "b"))
