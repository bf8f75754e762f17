"""Error feedback where units are few: groups of images that all take part in every step, each with vectors of its own.

    python benchmarks/feedback_units.py --fashion_mnist=fashion_mnist.npz --out=benchmarks/results/feedback_units.json

500 units with two images of one class each, from Fashion-MNIST reduced to 14x14, and the reconstruction loss of
efsgd_mixture, as in feedback_grid.py, with a smaller network. A unit's gradient g_i is the mean over its images. It
contributes c_i to a step; noise of standard deviation sigma C is added to the sum:

    none          c_i = clip(g_i, C)                       the update is the noisy mean of the c_i
    local         c_i = clip(g_i + r_i, C)                 r_i <- a clip(g_i + r_i - c_i, C), a = 0.5
    Clip21-SGD2M  c_i = clip(v_i - b_i, C)                 v_i <- (1 - beta) v_i + beta g_i;  b_i <- b_i + eta c_i
    alpha-NormEC  c_i = C d_i / (alpha + |d_i|)            d_i = g_i - b_i;  b_i <- b_i + eta c_i

In the last two (arXiv 2502.11682, 2502.13482) the server adds eta times the noisy mean to its own vector, which is the
update; in alpha-NormEC divided by its norm. 100 steps, epsilon 10 for a unit. The clip norms are percentiles of the
norms of the units' first gradients (a choice for research, the same for all modes). The learning rate (of five) and,
where there is one, eta (of three) are the best in a run with another seed; beta is 0.3, and alpha a tenth of C.
Interrupted, the same command goes on where it was. About half an hour on 2 CPU cores.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from feedback_grid import DELTA, PERCENTILES, Task, compared, held_out_loss, recorded, tasks_of

from efsgd_jax import error_feedback_aggregate, fresh_key
from efsgd_jax.privacy import DpSgdMechanism, calibrate_mechanism

UNITS, IMAGES, STEPS, EPSILON, BETA, ALPHA = 500, 2, 100, 10.0, 0.3, 0.1
# Learning rates, for gradients divided by the clip norm, and rates eta of the buffers, to choose from.
RATES, BUFFER_RATES = (0.01, 0.03, 0.1, 0.3, 1.0), (0.1, 0.3, 1.0)
MODES = {
    "none, SGD": [(rate, 1.0) for rate in RATES],
    "none, momentum": [(rate / 10, 1.0) for rate in RATES],
    "local, SGD": [(rate, 1.0) for rate in RATES],
    "local, momentum": [(rate / 10, 1.0) for rate in RATES],
    # The noise of all steps stays in the server's vector, so that smaller rates are best.
    "Clip21-SGD2M": [(rate / 10, eta) for rate in RATES for eta in BUFFER_RATES],
    "alpha-NormEC": [(rate / 10, eta) for rate in RATES for eta in BUFFER_RATES],
}


def norm_of(rows: Any) -> jax.Array:
    """The norm of each row of a pytree of leaves ``[N, ...]``: ``[N]``."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(rows)))


def scaled(rows: Any, factor: jax.Array) -> Any:
    """Each row of a pytree of leaves ``[N, ...]`` times its own factor, ``[N]``."""
    return jax.tree.map(lambda x: x * factor.reshape(-1, *[1] * (x.ndim - 1)), rows)


def clipped(rows: Any, clip: jax.typing.ArrayLike) -> Any:
    """Each row scaled down to a norm of at most ``clip``."""
    return scaled(rows, jnp.minimum(1.0, clip / jnp.maximum(norm_of(rows), 1e-12)))


class Trainer:
    """Training in one mode; its program serves all clip norms, rates and seeds."""

    def __init__(self, task: Task, mode: str):
        self.task, self.mode = task, mode.split(",")[0]
        self.momentum = 0.9 if "momentum" in mode else 0.0
        mechanism = DpSgdMechanism(
            dataset_size=UNITS, sampling_probability=1.0, capacity=UNITS, noise_multiplier=1.0
        )  # every contribution below has norm C at most: see docs/privacy/feedback.md
        mechanism = calibrate_mechanism(mechanism, STEPS, target_epsilon=EPSILON, delta=DELTA)
        assert mechanism.epsilon(STEPS, DELTA) <= EPSILON
        self.sigma = mechanism.noise_multiplier
        order = np.argsort(np.asarray(task.labels), kind="stable")
        classes = order[: len(order) // 10 * 10].reshape(10, -1)[:, : UNITS // 10 * IMAGES]
        rows = classes.reshape(UNITS, IMAGES)
        self.examples = task.images[rows], task.labels[rows]
        self.step = jax.jit(self._step)

    def gradients(self, params: Any, key: jax.Array) -> Any:
        """The mean gradient of each unit, leaves ``[UNITS, ...]``."""

        def of_unit(images: jax.Array, labels: jax.Array) -> Any:
            keys = jax.random.split(key, IMAGES)
            mean = lambda p: jnp.mean(jax.vmap(self.task.loss, (None, 0, 0))(p, (images, labels), keys))  # noqa: E731
            return jax.grad(mean)(params)

        return jax.lax.map(lambda unit: of_unit(*unit), self.examples, batch_size=50)

    def contributions(self, gradients: Any, buffers: Any, clip: jax.Array, eta: jax.Array) -> tuple[Any, Any]:
        """What the units add to the sum, and their new vectors."""
        first, second = buffers
        if self.mode == "none":
            return clipped(gradients, clip), buffers
        if self.mode == "local":
            stretched = optax.tree.add(gradients, first)
            added = clipped(stretched, clip)
            return added, (optax.tree.scale(0.5, clipped(optax.tree.sub(stretched, added), clip)), second)
        if self.mode == "Clip21-SGD2M":
            second = optax.incremental_update(gradients, second, BETA)
            added = clipped(optax.tree.sub(second, first), clip)
        else:
            missing = optax.tree.sub(gradients, first)
            added = scaled(missing, clip / (ALPHA * clip + norm_of(missing)))
        return added, (optax.tree.add(first, optax.tree.scale(eta, added)), second)

    def _step(self, state: Any, clip: jax.Array, rate: jax.Array, eta: jax.Array, key: jax.Array) -> Any:
        params, noise_state, buffers, server, i = state
        added, buffers = self.contributions(self.gradients(params, jax.random.fold_in(key, i)), buffers, clip, eta)
        # The transform clips once more, which changes nothing but rounding, and adds the noise.
        tx = error_feedback_aggregate(clip, self.sigma, key, expected_batch_size=UNITS, sampling="full_batch")
        mean, noise_state = tx.update(added, noise_state, params)
        if self.mode in ("none", "local"):
            server = optax.tree.add(optax.tree.scale(self.momentum, server), mean)
        else:
            server = optax.tree.add(server, optax.tree.scale(eta, mean))
        length = optax.tree.norm(server) if self.mode == "alpha-NormEC" else clip
        params = optax.tree.add(params, optax.tree.scale(-rate / length, server))
        return params, noise_state, buffers, server, i + 1

    def __call__(self, clip: float, rate: float, eta: float, seed: int) -> float:
        """The part, in percent, by which the held-out loss is lower than before training."""
        start_key, key = jax.random.split(jax.random.key(seed))
        params = self.task.init(start_key)
        begin = held_out_loss(self.task, params)
        none = jax.tree.map(lambda p: jnp.zeros((UNITS, *p.shape)), params)
        tx = error_feedback_aggregate(clip, self.sigma, fresh_key(), expected_batch_size=UNITS, sampling="full_batch")
        state = params, tx.init(params), (none, none), jax.tree.map(jnp.zeros_like, params), 0
        for _ in range(STEPS):
            state = self.step(state, clip, rate, eta, key)
        return 100 * (1 - held_out_loss(self.task, state[0]) / begin)


def complete(record: dict, path: Path, runs: int, save: Callable[[], None]) -> None:
    """Does the runs that ``record`` lacks, on the images of a file."""
    task = tasks_of(path, width=8, blocks=1)["efsgd_mixture"]
    if not record["clip_norms"]:
        norms = norm_of(Trainer(task, "none").gradients(task.init(jax.random.key(0)), jax.random.key(1)))
        record["clip_norms"] = {str(p): float(np.percentile(norms, p)) for p in PERCENTILES}
    for mode, choices in MODES.items():
        trainer = Trainer(task, mode)
        for percentile, clip in record["clip_norms"].items():
            tried = record["tuning"].setdefault(f"{mode}, {percentile}", [])
            for rate, eta in choices[len(tried) :]:
                tried.append([trainer(clip, rate, eta, seed=100), rate, eta])
                save()
            _, rate, eta = max(tried)
            scores = record["scores"].setdefault(f"{mode}, {percentile}", [])
            while len(scores) < runs:
                scores.append(trainer(clip, rate, eta, seed=len(scores)))
                save()
        jax.clear_caches()


def to_table(record: dict) -> str:
    """A row for each mode; differences from SGD without feedback of more than two standard errors are bold."""
    lines = ["| mode | " + " | ".join(f"{p}th percentile" for p in PERCENTILES) + " |", "|---|---|---|---|"]
    for mode in MODES:
        cells = []
        for percentile in PERCENTILES:
            scores, plain = (record["scores"].get(f"{m}, {percentile}", []) for m in (mode, "none, SGD"))
            if min(len(scores), len(plain)) < 2:
                continue
            cells.append(compared(scores, plain))
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(recorded(__doc__, complete, to_table))
