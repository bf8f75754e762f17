"""Error feedback at an equal proven epsilon: {none, local, private} x {SGD, momentum, Adam} x three clip norms x
balanced and imbalanced classes, for the losses of efsgd_mixture and private_diffusion.

    python benchmarks/feedback_grid.py --fashion_mnist=fashion_mnist.npz --out=benchmarks/results/feedback_grid.json

Fashion-MNIST reduced to 14x14, of which the last tenth of the training split is held out; the test split is not read.
In the imbalanced data classes 5 to 9 have a hundredth of their images. In the place of a mixture, the blurred images
are the real ones' 5x5 lowest frequencies, so that nothing is spent before training. A small network is trained in 100
private steps of 256 images at epsilon 4 (sigma is solved for each mode). The score is the part, in percent, by which
the held-out loss, as a mean over the classes, is lower than before training.

The clip norms are the 10th, 50th and 90th percentile of the norms of gradients in a run without noise, and the
learning rate of each mode, optimiser and clip norm is the best of four in a run on balanced data with another seed.
Both are choices for research: they are not paid for, and are made in the same way for every mode. Interrupted, the
same command goes on where it was. About an hour on 2 CPU cores.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from held_out import without_test_split
from provenance import provenance
from scipy import fft

from efsgd_jax import error_feedback_aggregate, fresh_key, load_dataset
from efsgd_jax.privacy import DpSgdMechanism, calibrate_mechanism, clipped_grad, sample_capacity, unit_lengths
from efsgd_jax.privacy.dp_sgd import LOCAL_OVERFLOW
from efsgd_jax.synthesizers import efsgd_mixture, private_diffusion
from efsgd_jax.synthesizers.efsgd_mixture.method import Decoder
from efsgd_jax.synthesizers.efsgd_mixture.training import LAST_RATE, start_from, vector_in_basis
from efsgd_jax.synthesizers.gaussian_mixture.appearance import to_vector
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture
from efsgd_jax.synthesizers.private_diffusion.method import ResidualModel

SIDE, FREQUENCIES, STEPS, BATCH, EPSILON, DELTA, RARE = 14, 5, 100, 256, 4.0, 1e-5, 100
METHODS = ("efsgd_mixture", "private_diffusion")
MODES = ("none", "local", "private")
PERCENTILES = (10, 50, 90)
DATA = ("balanced", "imbalanced")
# Learning rates to choose from; for SGD and momentum they apply to gradients divided by the clip norm.
RATES = {"sgd": (0.3, 1.0, 3.0, 10.0), "momentum": (0.03, 0.1, 0.3, 1.0), "adam": (3e-3, 1e-2, 2e-2, 4e-2)}
EMA = 0.97


class Task(NamedTuple):
    """A loss on a data set: what the network starts from, and the images."""

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any, jax.Array], jax.Array]  # of parameters, one example (image, label), and a key
    images: jax.Array
    labels: jax.Array
    held_out: tuple[jax.Array, jax.Array]


def imbalanced(path: Path) -> Path:
    """The same file with a hundredth of the training images of classes 5 to 9."""
    found = dict(np.load(path))
    number = np.array([np.sum(found["y_train"][:i] == y) for i, y in enumerate(found["y_train"])])
    kept = (found["y_train"] < 5) | (number % RARE == 0)
    out = path.with_name("imbalanced.npz")
    np.savez(out, **{**found, "x_train": found["x_train"][kept], "y_train": found["y_train"][kept]})
    return out


def public_mixture(classes: int) -> Mixture:
    """A mixture that reads no image: its basis are the lowest spatial frequencies (the cosine transform's)."""
    waves = fft.idct(np.eye(SIDE), axis=0, norm="ortho")[:, :FREQUENCIES]
    basis = np.einsum("xi,yj->xyij", waves, waves).reshape(SIDE**2, FREQUENCIES**2)
    d, one = FREQUENCIES**2, jnp.ones((classes, 1))
    return Mixture(
        means=jnp.zeros((classes, SIDE**2)), basis=jnp.asarray(basis, jnp.float32), weights=one,
        centres=jnp.zeros((classes, 1, d)), axes=jnp.broadcast_to(jnp.eye(d), (classes, 1, d, d)),
        variances=jnp.ones((classes, 1, d)),
    )  # fmt: skip


def tasks_of(path: Path, width: int = 16, blocks: int = 2) -> dict[str, Task]:
    """The losses of both methods on a file's images."""
    data = load_dataset("npz", path=path)
    mixture = public_mixture(data.spec.num_classes)
    shared = {"directions": FREQUENCIES**2, "width": width, "blocks": blocks}
    decoder = Decoder(data.spec, efsgd_mixture.METHOD.hyperparameters(**shared))
    model = ResidualModel(data.spec, private_diffusion.METHOD.hyperparameters(**shared))

    def reconstruction(params: Any, example: Any, key: jax.Array) -> jax.Array:
        image, label = example
        vector = vector_in_basis(mixture, to_vector(image, decoder.hp), label)
        rebuilt = decoder(params, mixture, vector[None], label[None], key[None])
        return jnp.sum(jnp.square(rebuilt[0] - image.astype(jnp.float32) / 255))

    def denoising(params: Any, example: Any, key: jax.Array) -> jax.Array:
        image, label = example
        vector = vector_in_basis(mixture, to_vector(image, model.hp), label)
        start = start_from(mixture, vector[None], label[None], key[None], data.spec, model.hp)
        return model.loss(params, start, image.astype(jnp.float32) / 255, label, key)

    x, y = jnp.asarray(data.train_images), jnp.asarray(data.train_labels, jnp.int32)
    held_out = jnp.asarray(data.test_images[:2000]), jnp.asarray(data.test_labels[:2000], jnp.int32)
    return {
        "efsgd_mixture": Task(decoder.init, reconstruction, x, y, held_out),
        "private_diffusion": Task(model.init, denoising, x, y, held_out),
    }


def held_out_loss(task: Task, params: Any) -> float:
    """The mean over the classes of the loss of held-out images."""
    x, y = task.held_out
    keys = jax.random.split(jax.random.key(0), len(y))
    losses = np.asarray(jax.jit(jax.vmap(task.loss, (None, 0, 0)))(params, (x, y), keys))
    return float(np.mean([losses[np.asarray(y) == k].mean() for k in range(10)]))


def optimizer_of(name: str, rate: jax.typing.ArrayLike, clip: jax.typing.ArrayLike) -> optax.GradientTransformation:
    """The optimiser; its rate decays along a cosine, as in the methods."""
    scale = optax.scale_by_schedule(optax.cosine_decay_schedule(-1.0, STEPS, LAST_RATE))
    if name == "adam":
        return optax.chain(optax.scale_by_adam(), optax.scale(rate), scale)
    trace = [optax.trace(0.9)] if name == "momentum" else []
    return optax.chain(*trace, optax.scale(rate / clip), scale)


class Trainer:
    """Training with one mode and optimiser; its program serves all clip norms, learning rates and seeds."""

    def __init__(self, task: Task, mode: str, optimizer: str, noise: float | None = None):
        self.task = task
        n = len(task.labels)
        overflow = LOCAL_OVERFLOW if mode == "local" else None
        mechanism = DpSgdMechanism(
            dataset_size=n, sampling_probability=BATCH / n, noise_multiplier=1.0,
            capacity=sample_capacity(n, BATCH / n, overflow_probability=overflow),
            feedback=mode, feedback_l2_norm_clip={"none": None, "local": 1.0, "private": 2.0}[mode],
        )  # fmt: skip
        if noise is None:
            mechanism = calibrate_mechanism(mechanism, STEPS, target_epsilon=EPSILON, delta=DELTA)
            assert mechanism.epsilon(STEPS, DELTA) <= EPSILON
        self.sigma = mechanism.noise_multiplier if noise is None else noise
        self.mechanism, self.mode, self.optimizer = mechanism, mode, optimizer
        self.step = jax.jit(self._step)

    def _transform(self, clip: jax.typing.ArrayLike, key: jax.Array) -> optax.GradientTransformationExtraArgs:
        m = self.mechanism
        wide = None if m.feedback_l2_norm_clip is None else m.feedback_l2_norm_clip * clip
        units = m.dataset_size if self.mode == "local" else None
        return error_feedback_aggregate(
            clip, self.sigma, key, expected_batch_size=BATCH, feedback=m.feedback, feedback_l2_norm_clip=wide,
            num_units=units,
        )  # fmt: skip

    def _step(self, state: Any, clip: jax.Array, rate: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        params, ema, feedback, optimizer, i = state
        sample_key, loss_key, noise_key = jax.random.split(jax.random.fold_in(key, i), 3)
        rows, mask = self.mechanism.sample(sample_key)
        outer = self.mechanism.feedback_l2_norm_clip if self.mode == "private" else None
        gradient = clipped_grad(
            lambda p, example, k: (self.task.loss(p, example, k), None), clip, microbatch_size=32,
            outer_l2_norm_clip=None if outer is None else outer * clip,
        )  # fmt: skip
        batch = self.task.images[rows], self.task.labels[rows]
        more = {"carried": unit_lengths(feedback.residual, rows)} if self.mode == "local" else {}
        total = gradient(params, batch, jax.random.split(loss_key, len(rows)), mask, **more)
        tx = self._transform(clip, noise_key)
        mean, feedback = tx.update(total, feedback, params, **({"indices": rows} if self.mode == "local" else {}))
        updates, optimizer = optimizer_of(self.optimizer, rate, clip).update(mean, optimizer, params)
        params = optax.apply_updates(params, updates)
        ema = optax.incremental_update(params, ema, 1 - jnp.minimum(EMA, (1.0 + i) / (10.0 + i)))
        norms = jnp.where(mask, total.l2_norms, jnp.nan)
        return (params, ema, feedback, optimizer, i + 1), norms

    def __call__(self, clip: float, rate: float, seed: int) -> tuple[float, np.ndarray]:
        """The score, in percent, and norms of gradients."""
        start_key, key = jax.random.split(jax.random.key(seed))
        params = self.task.init(start_key)
        begin = held_out_loss(self.task, params)
        feedback = self._transform(clip, fresh_key()).init(params)
        state = (params, params, feedback, optimizer_of(self.optimizer, rate, clip).init(params), 0)
        norms = []
        for _ in range(STEPS):
            state, found = self.step(state, clip, rate, key)
            norms.append(np.asarray(found))
        end = held_out_loss(self.task, state[1])
        return 100 * (1 - end / begin), np.concatenate(norms)


def percentiles_of(task: Task) -> dict[str, float]:
    """The clip norms: percentiles of the norms of all gradients of a run with Adam, without clipping or noise."""
    _, norms = Trainer(task, "none", "adam", noise=0.0)(1e6, 3e-3, seed=100)
    return {str(p): float(np.nanpercentile(norms, p)) for p in PERCENTILES}


def best_rate(tried: dict[str, float]) -> float:
    return float(max(tried, key=lambda rate: tried[rate]))


def complete(record: dict, path: Path, runs: int, save: Callable[[], None]) -> None:
    """Does the runs that ``record`` lacks, on the images of a file."""
    tasks = {"balanced": tasks_of(path), "imbalanced": tasks_of(imbalanced(path))}
    for method in METHODS:
        if method not in record["clip_norms"]:
            record["clip_norms"][method] = percentiles_of(tasks["balanced"][method])
        for mode in MODES:
            for optimizer in RATES:
                for data in DATA:
                    trainer = None
                    for percentile, clip in record["clip_norms"][method].items():
                        name = f"{method}, {mode}, {optimizer}, {percentile}"
                        tried = record["tuning"].setdefault(name, {})
                        scores = record["scores"].setdefault(f"{name}, {data}", [])
                        while len(scores) < runs:
                            trainer = trainer or Trainer(tasks[data][method], mode, optimizer)
                            left = [rate for rate in RATES[optimizer] if str(rate) not in tried]
                            if left:  # ``DATA`` begins with the balanced images, with which rates are chosen
                                tried[str(left[0])] = trainer(clip, left[0], seed=100)[0]
                            else:
                                scores.append(trainer(clip, best_rate(tried), seed=len(scores))[0])
                            save()
                    jax.clear_caches()


def compared(new: list[float], old: list[float]) -> str:
    """The mean of ``new``, and its difference from that of ``old`` with the standard error; bold above two of these."""
    change = statistics.mean(new) - statistics.mean(old)
    error = (statistics.variance(new) / len(new) + statistics.variance(old) / len(old)) ** 0.5
    cell = f"{statistics.mean(new):.1f} ({change:+.1f} ± {error:.1f})"
    return f"**{cell}**" if abs(change) > 2 * error else cell


def to_table(record: dict) -> str:
    """A row for each method, data, optimiser and clip norm; differences of more than two standard errors are bold."""
    lines = ["| method | data | optimiser | percentile | none | local | private |", "|---|---|---|---|---|---|---|"]
    for method in METHODS:
        for data in DATA:
            for optimizer in RATES:
                for percentile in PERCENTILES:
                    found = [
                        record["scores"].get(f"{method}, {mode}, {optimizer}, {percentile}, {data}", [])
                        for mode in MODES
                    ]
                    if min(len(rows) for rows in found) < 2:
                        continue
                    cells = [f"{statistics.mean(found[0]):.1f}"]
                    for rows in found[1:]:
                        cells.append(compared(rows, found[0]))
                    lines.append(f"| {method} | {data} | {optimizer} | {percentile} | {' | '.join(cells)} |")
    return "\n".join(lines)


def recorded(
    description: str | None,
    complete: Callable[[dict, Path, int, Callable[[], None]], None],
    to_table: Callable[[dict], str],
) -> int:
    """The command line: ``complete`` adds what the file of results lacks and saves it as it goes; prints the table.

    Args:
      description: what ``--help`` says.
      complete: called with the results so far, the file of images, the number of runs, and a function that saves.
      to_table: the results as text.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion_mnist", required=True, help="the .npz file")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out = Path(args.out)
    empty: dict[str, Any] = {**provenance(), "clip_norms": {}, "tuning": {}, "scores": {}}
    record = json.loads(out.read_text()) if out.is_file() else empty
    out.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        out.write_text(json.dumps(record, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as directory:
        path = without_test_split(args.fashion_mnist, "fashion_mnist", Path(directory), image_size=SIDE)
        complete(record, path, args.runs, save)
    print(to_table(record))
    return 0


if __name__ == "__main__":
    sys.exit(recorded(__doc__, complete, to_table))
