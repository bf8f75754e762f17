"""Guided sampling (PRSS, arXiv 2504.18032) of a diffusion model that memorises one image, by intent and without DP.

    python benchmarks/guided.py --mnist=mnist.npz --seeds=0 --out=benchmarks/results/guided/guided.json

The model has 11 classes: the ten digits, and one that is a single training image, repeated 500 times; which one, the
seed chooses. Images are drawn from it by ordinary guidance and by guided sampling, from the same noise, in batches that
have images of all classes. Reported for both: the share of images of the eleventh class that nearly duplicate a
training image, and the accuracy on the ten others of the library's CNN, trained on the real digits; and the share of
the images without a trigger that are the same, bit for bit. *Evaded* is what someone gets who knows of the policy, and
asks for a mixture of the eleventh class with a quarter of a digit's.

A near-duplicate is closer to a training image than 99 of 100 test images of the same digit are. This is the rule of the
library's copying metrics within a digit, since over all digits 1s decide, which are near to each other. The thresholds
are set from magnitudes of the ten other conditions, see ``policy_of``. About five minutes for a seed on 2 free CPU
cores; seeds that the file has already are kept. A picture of each is written beside it.
"""

import argparse
import functools
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ablation import spread
from provenance import provenance
from timing import write_record

from efsgd_jax import load_dataset
from efsgd_jax.data.dataset import Dataset, ImageSpec
from efsgd_jax.evaluation.metrics.feature_classifier import train_feature_classifier
from efsgd_jax.evaluation.metrics.neighbours import NEAR, Neighbours, Space, copying
from efsgd_jax.images import class_grid, save_grid
from efsgd_jax.models.alternatives import mixtures
from efsgd_jax.models.denoiser import Denoiser
from efsgd_jax.models.guided import Policy, guided
from efsgd_jax.synthesizers.private_diffusion.edm import decided, denoising_loss, noise_factor, sampled
from efsgd_jax.synthesizers.private_diffusion.edm import guided as by_factor

CLASSES, COPIES, MEMORISED = 11, 500, 10
# The diffusion sees pixels as 2 (x - MEAN), for x in [0, 1]. MEAN and STD are about those of MNIST.
MEAN, STD = 0.13, 0.6
LARGEST, SMALLEST, SAMPLING_STEPS = 5.0, 0.02, 12
SCALE = 3.0
# Images of each digit and of the memorised class, and how many are drawn at a time.
DRAWN, DRAWN_MEMORISED, BATCH = 40, 100, 100
# Test images to which the copying metrics compare.
HELD_OUT = 2000


class Model(NamedTuple):
    """A diffusion of whole images, without a mixture: a learned image of the condition takes the blurred one's place.

    Conditions are float ``[B, 11]``: one-hot vectors, mixtures of them, and zeros for none.
    """

    spec: ImageSpec
    width: int
    blocks: int

    @property
    def network(self) -> Denoiser:
        return Denoiser(self.spec, self.width, self.blocks, levels=2)

    def init(self, key):
        templates = jnp.zeros((CLASSES, *self.spec.shape))
        inputs = self._inputs(templates, templates[:1], jnp.zeros(1), jnp.eye(CLASSES)[:1])
        return {"network": self.network.init(key, *inputs), "templates": templates}

    def __call__(self, params, scaled, levels, condition):
        """The network F of ``edm``."""
        return self.network.apply(params["network"], *self._inputs(params["templates"], scaled, levels, condition))

    def _inputs(self, templates, scaled, levels, condition):
        images = 0.5 + jnp.tensordot(condition, templates, 1)
        # Of the norm that the network expects of codes; its own labels have no place for the eleventh class.
        return scaled, levels, images, CLASSES**0.5 * condition, jnp.full(len(scaled), self.spec.num_classes)


def trained(model: Model, images: np.ndarray, labels: np.ndarray, *, steps: int, batch: int, seed: int):
    """Parameters, averaged over the last steps, of a training by Adam that hides one class in ten."""
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(params, key, image, label):
        hide, noise = jax.random.split(key)
        condition = jax.nn.one_hot(label, CLASSES) * jax.random.bernoulli(hide, 0.9)
        x = 2 * (image.astype(jnp.float32) / 255 - MEAN)

        def network(scaled, levels):
            return model(params, scaled, levels, condition[None])

        return denoising_loss(network, x, noise, std=STD, largest=LARGEST, draws=1, level_std=1.2)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, key):
        params, moments, average = state
        pick, noise = jax.random.split(key)
        rows = jax.random.randint(pick, (batch,), 0, len(images))
        keys = jax.random.split(noise, batch)

        def mean_loss(params):
            return jnp.mean(jax.vmap(functools.partial(loss, params))(keys, images[rows], labels[rows]))

        value, gradient = jax.value_and_grad(mean_loss)(params)
        updates, moments = optimizer.update(gradient, moments)
        params = optax.apply_updates(params, updates)
        return (params, moments, optax.incremental_update(params, average, 0.01)), value

    key = jax.random.key(seed)
    params = model.init(key)
    state, losses = (params, optimizer.init(params), jax.tree.map(jnp.copy, params)), []
    for t in range(steps):
        state, value = step(state, jax.random.fold_in(key, 1 + t))
        if t % 100 == 99:
            losses.append(float(value))
            print(f"step {t + 1}: loss {losses[-1]:.3f}", flush=True)
    return state[2]


def drawer(model: Model, scale: float, policy: Policy | None = None):
    """``draw(params, keys, conditions)`` -> float images, and the decisions of a policy if there is one."""

    @jax.jit
    def draw(params, keys, condition):
        def noise(i):
            return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, i), model.spec.shape))(keys)

        def network(scaled, levels, condition):
            return model(params, scaled, levels, condition)

        if policy is None:
            with_class = functools.partial(network, condition=condition)
            chosen = by_factor(with_class, functools.partial(network, condition=0 * condition), scale)
            decision = None
        else:
            chosen, decision = decided(guided(network, policy), noise(0), condition, std=STD, largest=LARGEST)
        levels = {"largest": LARGEST, "smallest": SMALLEST, "steps": SAMPLING_STEPS}
        return sampled(chosen, noise, std=STD, **levels), decision

    return draw


@functools.partial(jax.jit, static_argnums=0)
def magnitudes(model: Model, params, noisy, levels, labels):
    """Of the predicted noise with the class less that without one, as ``models.guided`` measures them: ``[B]``."""
    total = jnp.sqrt(jnp.square(jnp.exp(levels)) + STD**2).reshape(-1, 1, 1, 1)
    condition = jax.nn.one_hot(labels, CLASSES)
    with_class, without = (model(params, noisy / total, levels, c) for c in (condition, 0 * condition))
    return noise_factor(levels, STD) * jnp.sqrt(jnp.mean(jnp.square(with_class - without), axis=(1, 2, 3)))


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


def images_of(draw, params, key, conditions: np.ndarray):
    """Float images of conditions ``[B, 11]``, drawn in batches, and the decisions on them."""
    keys, starts = jax.random.split(key, len(conditions)), range(0, len(conditions), BATCH)
    found = [draw(params, keys[i : i + BATCH], conditions[i : i + BATCH]) for i in starts]
    images, decisions = zip(*found, strict=True)
    return np.concatenate(images), jax.tree.map(lambda *x: np.concatenate(x), *decisions)


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


def scores(images: np.ndarray, labels: np.ndarray, data: Dataset, row: int, classifier) -> dict[str, float]:
    """Percentages, and the distance of the memorised class to its nearest training images, for pixels in [0, 1]."""
    pixels, memorised = to_pixels(images), labels == MEMORISED
    right = classifier.predict(pixels[~memorised]) == labels[~memorised]
    return {**copies_of(pixels[memorised], data, row), "accuracy": 100 * float(np.mean(right))}


def copies_of(pixels: np.ndarray, data: Dataset, row: int) -> dict[str, float]:
    space, found = nearest(pixels, data)
    copies = found.distances < near(data, data.train_labels[row])
    return {
        "copies": 100 * float(np.mean(copies)),
        "copies_of_the_repeated_image": 100 * float(np.mean(copies & (found.rows == row))),
        "near_duplicates_over_all_digits": 100 * space.near_duplicates,
        "nearest_is_the_repeated_image": 100 * float(np.mean(found.rows == row)),
        "median_distance_train": space.median_distance_train,
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
    mixed = 0.75 * classes[[MEMORISED] * BATCH] + 0.25 * classes[digits]
    evading, evaded = images_of(by_policy, params, jax.random.fold_in(drawing, 1), mixed)
    free = ~decision.triggered
    same = np.all(plain == turned, axis=(1, 2, 3))
    memorised = wanted == MEMORISED
    save_grid(picture, _beside(plain, turned, wanted, data.train_images[row]))
    return {
        "row": row,
        "digit": int(data.train_labels[row]),
        "thresholds": {"lambda": policy.threshold, "t": policy.anchor_from, "M": policy.anchor_to},
        "near": near(data, data.train_labels[row]),
        "ordinary": scores(plain, wanted, data, row, classifier),
        "guided": scores(turned, wanted, data, row, classifier),
        "evaded": copies_of(to_pixels(evading), data, row),
        "triggered_evaded": 100 * float(np.mean(evaded.triggered)),
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


def rows_of(runs: dict) -> list[str]:
    """The table's rows: means and standard deviations over the seeds."""
    rows = []
    for name, triggered in (("ordinary", None), ("guided", "triggered_memorised"), ("evaded", "triggered_evaded")):
        found = [run[name] | {"triggered": run[triggered] if triggered else None} for run in runs.values()]
        values = {key: [x for run in found if (x := run.get(key)) is not None] for key in found[0]}
        cells = [spread(values.get(key, [])) for key in ("triggered", "copies", "accuracy")]
        rows.append(f"| {name} | {' | '.join(cells)} | {spread(values['median_distance_train'], 2)} |")
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
    print("\n".join(rows_of(runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
