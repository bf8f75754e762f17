"""Images without labels: one declared class, from every kind of source, through training, sampling and scoring."""

import numpy as np
import pytest
from PIL import Image

from efsgd_jax import UserError, default_config, evaluate, fit, load_dataset, sample

DIGITS = load_dataset("digits")
IMAGES = DIGITS.train_images[:300]


def draw(directory, images):
    directory.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(directory / f"{i}.png")


def loaded(path, classes="1", **options):
    name = "npz" if str(path).endswith(".npz") else "folder"
    return load_dataset(name, path=path, channels=1, classes=classes, **options)


@pytest.mark.parametrize("layout", ["flat", "class folders", "deep"])
def test_folders_mean_nothing(tmp_path, layout):
    parts = {"flat": [""], "class folders": ["a", "b"], "deep": ["", "x/y", "z"]}[layout]
    for i, part in enumerate(parts):
        draw(tmp_path / "all" / part, IMAGES[i :: len(parts)])
    data = loaded(tmp_path / "all")
    assert data.class_names == ("image",)
    assert len(data.train_labels) + len(data.test_labels) == 300
    assert not data.train_labels.any()


def test_a_part_of_its_own_is_the_test_part(tmp_path):
    draw(tmp_path / "all/train/a", IMAGES[:20])
    draw(tmp_path / "all/train", IMAGES[20:30])
    draw(tmp_path / "all/test", IMAGES[30:35])
    data = loaded(tmp_path / "all", classes="face")
    assert (len(data.train_labels), len(data.test_labels)) == (30, 5)
    assert data.class_names == ("face",)
    draw(tmp_path / "all", IMAGES[:1])
    with pytest.raises(UserError, match=r"0\.png lies beside train/; put it into one of the parts"):
        loaded(tmp_path / "all")


def test_arrays_need_no_labels_and_labels_are_not_read(tmp_path):
    np.savez(tmp_path / "without.npz", x_train=IMAGES)
    np.savez(tmp_path / "with.npz", x_train=IMAGES, y_train=np.arange(300) - 5)
    without, labelled = loaded(tmp_path / "without.npz"), loaded(tmp_path / "with.npz")
    np.testing.assert_array_equal(without.train_images, labelled.train_images)
    assert not labelled.train_labels.any()
    with pytest.raises(UserError, match="no array y_train"):
        loaded(tmp_path / "without.npz", classes=None)


def test_a_flat_folder_without_a_declaration_says_what_to_declare(tmp_path):
    draw(tmp_path / "all", IMAGES[:5])
    with pytest.raises(UserError, match=r"no class folder; .*for images without classes set --config.data.classes=1"):
        loaded(tmp_path / "all", classes=None)


def test_one_class_folder_is_one_class(tmp_path):
    draw(tmp_path / "all/cells", IMAGES)
    assert loaded(tmp_path / "all", classes=None).class_names == ("cells",)


SMALL = {
    "gaussian_mixture": {"components": 2, "directions": 8, "reranker_steps": 2},
    "efsgd_mixture": {"components": 2, "directions": 8, "reranker_steps": 2, "width": 8, "blocks": 1},
    "private_diffusion": {"components": 2, "directions": 8, "reranker_steps": 2, "width": 8, "blocks": 1},
    "born_machine": {"bond": 2},
    "p3gm": {"components": 2, "directions": 8, "reranker_steps": 2, "width": 8, "blocks": 1},
    "pate_triple_gan": {"components": 2, "directions": 8, "reranker_steps": 2, "classifier_steps": 2, "width": 4},
    "pearl": {"frequencies": 20, "matching_steps": 3, "images_per_step": 8, "width": 4},
    "distilled_set": {"images_per_class": 2, "networks": 2, "width": 4, "matching_steps": 3},
    "efsgd_gan": {},
}


@pytest.mark.parametrize("method", [*SMALL][:1] + [pytest.param(m, marks=pytest.mark.slow) for m in [*SMALL][1:]])
def test_a_run_of_one_class_is_trained_drawn_and_scored(tmp_path, method):
    np.savez(tmp_path / "data.npz", x_train=IMAGES)
    config = default_config(method)
    config.data.update(name="npz", path=str(tmp_path / "data.npz"), classes="1")
    config.method.update(SMALL[method])
    if "steps" in config.train:
        config.train.steps = 2
    if "expected_batch_size" in config.train:
        config.train.expected_batch_size = 32
    run = fit(config, tmp_path / "run", progress=False).workdir
    drawn = sample(run, 50, out=tmp_path / "samples", formats=("npz", "png", "grid"))
    assert drawn.images.shape == (50, 8, 8, 1)
    assert drawn.class_names == ("image",)
    scores = evaluate(run, num_images=50)
    assert not scores.gen2real
    assert np.isfinite(scores.fidelity["classifier"]["fid"])
    with pytest.raises(UserError, match="the images have one class"):
        evaluate(run, num_images=50, metrics=("utility",))
