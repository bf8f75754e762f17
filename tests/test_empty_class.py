"""A class without an image is allowed everywhere: it is trained, drawn, scored, shown and packed."""

import json

import numpy as np
import pytest

from efsgd_jax import default_config, evaluate, fit, report, sample
from efsgd_jax.evaluation.scoring import METRICS
from efsgd_jax.runs.privacy_markdown import to_markdown
from efsgd_jax.runs.release import pack
from efsgd_jax.runs.statement import DEFAULT_RANGE

SMALL = {
    "efsgd_gan": {
        "method": {"latent": 4, "generator_width": 4, "discriminator_width": 4, "encoder_width": 4, "max_width": 8,
                   "features": 8, "generated_batch_size": 8, "microbatch_size": 32},
        "train": {"steps": 3, "expected_batch_size": 16},
    },
    "gaussian_mixture": {
        "method": {"components": 2, "directions": 4, "cluster_steps": 1, "candidates": 2, "reranker_steps": 4},
    },
    "efsgd_mixture": {
        "method": {"components": 2, "directions": 4, "cluster_steps": 1, "candidates": 2, "reranker_steps": 4,
                   "width": 4, "blocks": 1},
        "train": {"steps": 3, "expected_batch_size": 16},
    },
    "distilled_set": {
        "method": {"images_per_class": 2, "networks": 2, "width": 4, "matching_steps": 3},
    },
    "born_machine": {"method": {"bond": 2}, "train": {"steps": 3, "expected_batch_size": 16}},
    "p3gm": {
        "method": {"components": 2, "directions": 4, "cluster_steps": 1, "candidates": 2, "reranker_steps": 4,
                   "width": 4, "blocks": 1, "posterior_width": 4},
        "train": {"steps": 3, "expected_batch_size": 16},
    },
    "pate_triple_gan": {
        "method": {"components": 2, "directions": 4, "cluster_steps": 1, "candidates": 2, "reranker_steps": 4,
                   "labelled": 0.5, "feature_directions": 4, "classifier_steps": 3, "width": 4, "blocks": 1,
                   "critic_width": 4, "critic_steps": 1, "critic_batch_size": 4, "warm_steps": 1},
        "train": {"steps": 3},
        "privacy": {"num_shards": 3, "l2_norm_clip": 1.0},
    },
    "pearl": {
        "method": {"components": 2, "directions": 4, "cluster_steps": 1, "candidates": 2, "reranker_steps": 4,
                   "start": "mixture", "frequencies": 6, "matching_steps": 3, "images_per_step": 8, "width": 4,
                   "blocks": 1},
    },
    "private_diffusion": {
        "method": {"components": 2, "directions": 4, "cluster_steps": 1, "candidates": 2, "reranker_steps": 4,
                   "width": 4, "blocks": 1, "sampling_steps": 2},
        "train": {"steps": 3, "expected_batch_size": 16},
    },
    "sanitized_gan": {
        "method": {"latent": 4, "generator_width": 4, "max_width": 8, "critic_width": 4, "critic_steps": 1,
                   "critic_batch_size": 4, "warm_steps": 1, "classifier_weight": 0.5},
        "train": {"steps": 3, "images_per_step": 4},
        "privacy": {"num_shards": 4, "schedule": "round_robin"},
    },
}  # fmt: skip


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (90, 8, 8), dtype=np.uint8), np.arange(90) % 2 * 2
    file = tmp_path / "data.npz"
    np.savez(file, x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])
    return file


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[pytest.mark.slow] * (m != "gaussian_mixture")) for m in SMALL]
)
def test_a_class_without_an_image_is_trained_drawn_scored_and_released(method, arrays, tmp_path):
    config = default_config(method)
    config.data.update(name="npz", path=str(arrays), classes="a,nothing,b,neither")
    for group, values in SMALL[method].items():
        config[group].update(values)
    with pytest.warns(UserWarning, match=r"2 of 4 classes have no training image \('nothing', 'neither'\)"):
        result = fit(config, tmp_path / "run", progress=False)
    assert result.privacy["public"] == {
        "dataset_size": 60,
        "classes": ["a", "nothing", "b", "neither"],
        "image_size": 8,
        "channels": 1,
        "value_range": DEFAULT_RANGE,
    }
    text = (tmp_path / "run/release/PRIVACY.md").read_text()
    assert (
        "Public, and not protected: that there are 60 training images, of the classes a, nothing, b, neither;" in text
    )
    assert "1 channel; which values stand for black and white, by the format of the files." in text
    drawn = sample(result.workdir, 8)
    assert sorted(set(drawn.labels.tolist())) == [0, 1, 2, 3]
    # All scores of one method: they are of images, and take a minute.
    metrics = METRICS if method == "efsgd_mixture" else ("utility",)
    evaluate(result.workdir, num_images=40, metrics=metrics, classifiers=("logistic_regression", "mlp"))
    scores = json.loads((tmp_path / "run/private/scores.json").read_text())
    assert scores["gen2real"]["mlp"]["per_class"]["nothing"] is None
    report(result.workdir)
    pack(result.workdir, tmp_path / "out.zip")
    changed = json.loads((tmp_path / "run/release/privacy.json").read_text())
    changed["public"]["classes"] = ["a", "b"]
    (tmp_path / "run/release/privacy.json").write_text(json.dumps(changed))
    (tmp_path / "run/release/PRIVACY.md").write_text(to_markdown(changed))
    with pytest.raises(ValueError, match="lists other public facts"):
        pack(result.workdir, tmp_path / "other.zip")
