"""Guided sampling (PRSS, arXiv 2504.18032) of a diffusion model that memorises one image, by intent and without DP.

    python benchmarks/guided.py --mnist=mnist.npz --seeds=0 --out=benchmarks/results/guided/guided.json

The model has 11 classes: the ten digits, and one that is a single training image, repeated 500 times; which one, the
seed chooses. Images are drawn from it by ordinary guidance and by guided sampling, from the same noise, in batches that
have images of all classes. Reported for both: the share of images of the eleventh class that nearly duplicate a
training image, and the accuracy on the ten others of the library's CNN, trained on the real digits; and the share of
the images without a trigger that are the same, bit for bit. *Evaded* is what someone gets who knows of the policy, and
asks for something else than the eleventh class in order to stay below the threshold: a mixture of it with a digit's, or
a part of its own condition. Six such conditions are tried, see ``evasions``, and the one with the most copies of the
repeated image is the row.

A near-duplicate is closer to a training image than 99 of 100 test images of the same digit are. This is the rule of the
library's copying metrics within a digit, since over all digits 1s decide, which are near to each other. The thresholds
are set from magnitudes of the ten other conditions, see ``policy_of``. About eight minutes for a seed on 2 free CPU
cores; seeds that the file has already are kept. A picture of each is written beside it.
"""

import argparse
import functools
import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ablation import spread
from memorising import (
    BATCH,
    CLASSES,
    LARGEST,
    MEAN,
    SAMPLING_STEPS,
    SMALLEST,
    STD,
    Model,
    drawer,
    images_of,
    magnitudes,
    trained,
)
from provenance import provenance
from timing import write_record

from efsgd_jax import load_dataset
from efsgd_jax.data.dataset import Dataset
from efsgd_jax.evaluation.metrics.feature_classifier import train_feature_classifier
from efsgd_jax.evaluation.metrics.neighbours import NEAR, Neighbours, Space, copying
from efsgd_jax.images import class_grid, save_grid
from efsgd_jax.models.alternatives import mixtures
from efsgd_jax.models.guided import Policy
from efsgd_jax.synthesizers.private_diffusion.edm import noise_factor

COPIES, MEMORISED = 500, CLASSES - 1
SCALE = 3.0
# Images of each digit, of the memorised class, and of each evasion.
DRAWN, DRAWN_MEMORISED, DRAWN_EVADING = 40, 100, 50
# What evasions ask for: mixtures in which a digit has a share, and parts of the memorised class's condition alone.
SHARES, PARTS = (0.25, 0.5, 0.75), (0.4, 0.6, 0.8)
# The names of two shares, in percent.
REPEATED, NEAREST = "copies_of_the_repeated_image", "nearest_is_the_repeated_image"
# Test images to which the copying metrics compare.
HELD_OUT = 2000


def evasions() -> dict[str, np.ndarray]:
    """Conditions ``[DRAWN_EVADING, 11]`` of someone who wants the memorised image and no trigger, by their names."""
    classes = np.eye(CLASSES, dtype=np.float32)
    digits, wanted = classes[np.arange(DRAWN_EVADING) % MEMORISED], classes[np.full(DRAWN_EVADING, MEMORISED)]
    mixed = {f"mixed with {share:g} of a digit": (1 - share) * wanted + share * digits for share in SHARES}
    return mixed | {f"{part:g} of its own condition": part * wanted for part in PARTS}


def policy_of(model: Model, params, key, digits: np.ndarray, labels: np.ndarray) -> Policy:
    """Thresholds from magnitudes of conditions that are known to be of many images, and from no real image.

    lambda is a twentieth above their largest magnitude at the first step. t is their median over all noise levels of
    sampling, for generated digits with fresh noise, and M is 5/3 of it, which is the ratio of the published code.

    Args:
      model: the diffusion.
      params: its parameters.
      key: PRNG key of the noise.
      digits: images of the ten digits by ordinary guidance, float ``[B, 28, 28, 1]``.
      labels: their classes.
    """

    def at(i, sigma, images):
        noise = jax.random.normal(jax.random.fold_in(key, i), images.shape)
        level = jnp.full(len(images), math.log(sigma))
        return np.asarray(magnitudes(model, params, images + sigma * noise, level, labels))

    first = at(0, LARGEST, np.zeros_like(digits))
    levels = np.geomspace(LARGEST, SMALLEST, SAMPLING_STEPS)
    middle = float(np.median([at(i, sigma, digits) for i, sigma in enumerate(levels, 1)]))
    alternatives = mixtures(jnp.eye(CLASSES), shares=(0.5, 0.75))
    factor = functools.partial(noise_factor, std=STD)
    return Policy(SCALE, 1.05 * float(first.max()), middle, 5 / 3 * middle, alternatives, factor)


def to_pixels(images: np.ndarray) -> np.ndarray:
    return np.clip(255 * (images / 2 + MEAN), 0, 255).round().astype(np.uint8)


def nearest(pixels: np.ndarray, data: Dataset) -> tuple[Space, Neighbours]:
    """The copying metrics of uint8 images, for pixels in [0, 1]."""
    parts = pixels, data.train_images, data.test_images[:HELD_OUT]
    return copying(*(x.reshape(len(x), -1) / np.float32(255) for x in parts))


def near(data: Dataset, digit: int) -> float:
    """The distance that defines a near-duplicate, as in the copying metrics, for images of one digit."""
    _, found = nearest(data.test_images[data.test_labels == digit], data)
    return float(np.quantile(found.distances, NEAR))


def scores(images: np.ndarray, labels: np.ndarray, data: Dataset, row: int, limit, classifier) -> dict[str, float]:
    """Percentages, and the distance of the memorised class to its nearest training images, for pixels in [0, 1]."""
    pixels, memorised = to_pixels(images), labels == MEMORISED
    right = classifier.predict(pixels[~memorised]) == labels[~memorised]
    return {**copies_of(pixels[memorised], data, row, limit), "accuracy": 100 * float(np.mean(right))}


def copies_of(pixels: np.ndarray, data: Dataset, row: int, limit: float) -> dict[str, float]:
    """How many are nearer to a training image than ``limit``, and how many have image ``row`` as their nearest."""
    space, found = nearest(pixels, data)
    copies = found.distances < limit
    return {
        "copies": 100 * float(np.mean(copies)),
        REPEATED: 100 * float(np.mean(copies & (found.rows == row))),
        "near_duplicates_over_all_digits": 100 * space.near_duplicates,
        NEAREST: 100 * float(np.mean(found.rows == row)),
        "median_distance_train": space.median_distance_train,
    }


def evaded(draw, data: Dataset, row: int, limit: float) -> dict[str, dict[str, float]]:
    """Percentages of each evasion; ``draw(conditions)`` is guided sampling, of all at once in batches of one size."""
    asked = evasions()
    images, decisions = draw(np.concatenate([*asked.values()]))
    parts = [slice(i, i + DRAWN_EVADING) for i in range(0, len(images), DRAWN_EVADING)]
    return {
        name: {
            "triggered": 100 * float(np.mean(decisions.triggered[part])),
            **copies_of(to_pixels(images[part]), data, row, limit),
        }
        for name, part in zip(asked, parts, strict=True)
    }


def run_of(seed: int, args, data: Dataset, classifier, picture: Path) -> dict:
    """The measurements of one seed, and its picture."""
    row = int(np.random.default_rng(seed).integers(len(data.train_images)))
    repeated = np.repeat(data.train_images[row : row + 1], COPIES, axis=0)
    images = np.concatenate([data.train_images, repeated])
    labels = np.concatenate([data.train_labels, np.full(COPIES, MEMORISED)])
    model = Model(data.spec, args.width, args.blocks)
    params = trained(model, images, labels, steps=args.steps, batch=args.batch, seed=seed)

    calibration, drawing, shuffle = jax.random.split(jax.random.key(1000 + seed), 3)
    wanted = np.repeat(np.arange(CLASSES), [DRAWN] * MEMORISED + [DRAWN_MEMORISED])
    wanted = np.asarray(jax.random.permutation(shuffle, wanted))
    ordinary = drawer(model, SCALE)
    digits = np.tile(np.arange(MEMORISED), BATCH // MEMORISED)
    classes = np.eye(CLASSES, dtype=np.float32)
    known, _ = images_of(ordinary, params, calibration, classes[digits])
    policy = policy_of(model, params, jax.random.fold_in(calibration, 1), known, digits)

    by_policy = drawer(model, SCALE, policy)
    plain, _ = images_of(ordinary, params, drawing, classes[wanted])
    turned, decision = images_of(by_policy, params, drawing, classes[wanted])
    limit = near(data, data.train_labels[row])
    draw = functools.partial(images_of, by_policy, params, jax.random.fold_in(drawing, 1))
    tried = evaded(draw, data, row, limit)
    best = max(tried, key=lambda name: (tried[name][REPEATED], tried[name][NEAREST]))
    free = ~decision.triggered
    same = np.all(plain == turned, axis=(1, 2, 3))
    memorised = wanted == MEMORISED
    save_grid(picture, _beside(plain, turned, wanted, data.train_images[row]))
    return {
        "row": row,
        "digit": int(data.train_labels[row]),
        "thresholds": {"lambda": policy.threshold, "t": policy.anchor_from, "M": policy.anchor_to},
        "near": limit,
        "ordinary": scores(plain, wanted, data, row, limit, classifier),
        "guided": scores(turned, wanted, data, row, limit, classifier),
        "evasions": tried,
        "evaded": {"asked_for": best, **tried[best]},
        "triggered_memorised": 100 * float(np.mean(decision.triggered[memorised])),
        "triggered_others": 100 * float(np.mean(decision.triggered[~memorised])),
        "not_triggered_and_bit_identical": 100 * float(np.mean(same[free])),
        "first_magnitude_memorised": float(np.median(decision.magnitude[memorised])),
        "first_magnitude_of_the_alternative": float(np.median(decision.alternative_magnitude[memorised])),
        "first_magnitude_others": float(np.median(decision.magnitude[~memorised])),
        "share_kept_of_the_condition": float(np.mean(decision.alternative[memorised, MEMORISED])),
    }


def _beside(plain: np.ndarray, turned: np.ndarray, labels: np.ndarray, memorised: np.ndarray) -> np.ndarray:
    """Ten columns of ordinary guidance and ten of guided sampling; the last row begins with the memorised image."""
    grids = []
    for images in (plain, turned):
        pixels = np.concatenate([memorised[None], to_pixels(images)])
        grids.append(class_grid(pixels, np.concatenate([[MEMORISED], labels]), CLASSES))
    return np.concatenate([grids[0], np.full((len(grids[0]), 12, 1), 128, np.uint8), grids[1]], axis=1)


def rows_of(runs: list[dict]) -> list[str]:
    """The table's rows: means and standard deviations over the seeds."""
    rows = []
    for name in ("ordinary", "guided", "evaded"):
        found = [run[name] | ({"triggered": run["triggered_memorised"]} if name == "guided" else {}) for run in runs]
        cells = [
            spread([x[key] for x in found if key in x], 2 if key == "median_distance_train" else 1)
            for key in ("triggered", "copies", REPEATED, NEAREST, "median_distance_train", "accuracy")
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="the .npz file")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out = Path(args.out)
    runs = json.loads(out.read_text())["runs"] if out.is_file() else {}
    data = load_dataset("mnist", path=args.mnist)
    classifier = train_feature_classifier(data.train_images, data.train_labels, MEMORISED)
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds.split(","):
        if seed not in runs:
            runs[seed] = run_of(int(seed), args, data, classifier, out.with_name(f"{out.stem}_{seed}.png"))
            write_record(args.out, {**provenance(), "steps": args.steps, "batch": args.batch, "runs": runs})
            print(json.dumps(runs[seed], indent=1), flush=True)
    print("\n".join(rows_of([*runs.values()])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
