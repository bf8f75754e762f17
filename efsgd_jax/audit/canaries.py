"""One training run with canaries in it: each takes part or not by the toss of a coin; the attack guesses which."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from efsgd_jax.audit.bounds import area_under_curve, one_run_lower_bound, statistics
from efsgd_jax.audit.membership import MAX_IMAGES, nearness
from efsgd_jax.config import validate
from efsgd_jax.data import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.privacy import DpSgdMechanism, clipped_grad, fresh_key
from efsgd_jax.runs.sampling import draw
from efsgd_jax.synthesizers.base import Batch
from efsgd_jax.training.setup import Setup, bind, dataset_of

PyTree = Any
CHUNK = 50


class RunAudit(NamedTuple):
    """What one run with canaries showed.

    Attributes:
      claimed: the run's epsilon at ``delta``.
      delta: of the claim and of the bounds.
      steps: private steps taken.
      canaries: how many could have taken part.
      bounds: epsilon is at least this, for each attack, at 95% confidence for both together.
      curves: area under the attack's ROC curve; 0.5 is a coin.
    """

    claimed: float
    delta: float
    steps: int
    canaries: int
    bounds: dict[str, float]
    curves: dict[str, float]


class _Recorded(NamedTuple):
    """The transform's state, its last release and the sum under the noise."""

    rng_key: jax.Array
    residual: PyTree
    like: PyTree
    released: PyTree
    clipped_sum: PyTree


class _Recording(DpSgdMechanism):
    """The same mechanism; its transform keeps what the attacker needs."""

    def transform(self, key: jax.Array) -> optax.GradientTransformationExtraArgs:
        inner = super().transform(key)

        def init(params: PyTree) -> Any:
            nothing = jax.tree.map(jnp.zeros_like, params)
            return _Recorded(**inner.init(params)._asdict(), released=nothing, clipped_sum=nothing)

        def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
            released, new = inner.update(updates, state, params, **extra)
            return released, _Recorded(**new._asdict(), released=released, clipped_sum=updates.clipped_sum)

        return optax.GradientTransformationExtraArgs(init, update)


def make_canaries(spec: ImageSpec, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images unlike any record: random black and white blocks, with random labels.

    Returns:
      uint8 ``[count, S, S, C]`` and int32 ``[count]``.
    """
    blocks = rng.integers(2, size=(count, 4, 4, spec.channels), dtype=np.uint8) * 255
    rows = np.arange(spec.image_size) * 4 // spec.image_size
    return blocks[:, rows][:, :, rows], rng.integers(spec.num_classes, size=count).astype(np.int32)


def audit_run(config: ConfigDict, *, canaries: int = 200, seed: int | None = None, progress: bool = True) -> RunAudit:
    """Trains once, as ``fit`` would, on the data and about half of the canaries, and attacks the transcript.

    Two attacks score each canary. *White box*: least squares on the noisy gradients of all steps, less what all others
    added, by the canaries' own clipped gradients at the parameters of the time. This is the adversary of the
    definition. *Black box*: how near the released generator's images come to the canary.

    Args:
      config: of the run; its epsilon is calibrated for the data with the canaries.
      canaries: m.
      seed: of coins, batches and noise, to see a run again; None takes the system's entropy. Nothing is released.
      progress: show a progress bar on standard error.

    Raises:
      UserError: a bad configuration, too few canaries, or jax-privacy is not installed.

    Formal guarantees:
      Canaries take part independently, each with probability 1/2, which is what the bound needs (Steinke et al., 2023).
      Nothing is written to disk, and nothing of the run may be released: it leaves no guarantee behind.
    """
    if canaries < 20:
        raise UserError(f"{canaries} canaries cannot show anything; use at least 20")
    statistics()  # it would be missed after training otherwise
    validate(config)
    dataset = dataset_of(config)
    rng = np.random.default_rng(seed)
    images, labels = make_canaries(dataset.spec, canaries, rng)
    present = rng.random(canaries) < 0.5
    together = dataclasses.replace(
        dataset,
        train_images=np.concatenate([images, dataset.train_images]),
        train_labels=np.concatenate([labels, dataset.train_labels]),
    )
    if config.method.name != "efsgd_gan":
        raise UserError(
            f"canaries attack gradients of single images; config.method.name is {config.method.name}, which has none. "
            "Audit its schedules: python -m efsgd_jax audit"
        )
    setup = bind(config, together, lambda mechanism: _Recording(*mechanism))
    ledger, synthesizer = setup.ledger, setup.synthesizer
    run_key, image_key = jax.random.split(fresh_key() if seed is None else jax.random.key(seed))
    state, white = _train(setup, present, run_key, progress)
    drawn_labels = np.arange(min(len(dataset.train_labels), MAX_IMAGES)) % dataset.spec.num_classes
    drawn = draw(jax.jit(synthesizer.generate), synthesizer.released(state), image_key, drawn_labels)
    black = nearness(images, labels, drawn, drawn_labels)
    scores = {"white box": white, "black box": black}
    return RunAudit(
        ledger.report(ledger.steps)["pld"],
        ledger.delta,
        ledger.steps,
        canaries,
        {
            name: one_run_lower_bound(s[present], s[~present], ledger.delta, significance=0.05 / len(scores))
            for name, s in scores.items()
        },
        {name: area_under_curve(s[present], s[~present]) for name, s in scores.items()},
    )


def _train(setup: Setup, present: np.ndarray, key: jax.Array, progress: bool) -> tuple[PyTree, np.ndarray]:
    """The last state, and the white-box score of each canary. Canaries are the first rows."""
    data, ledger, synthesizer = setup
    mechanism, steps = ledger.mechanism, ledger.steps
    assert isinstance(mechanism, DpSgdMechanism)
    assert synthesizer.example_loss is not None  # of ``efsgd_gan`` both are so
    count = len(present)
    allowed = jnp.concatenate([jnp.asarray(present), jnp.ones(len(data.train_labels) - count, bool)])

    clipped_sum = clipped_grad(synthesizer.example_loss, mechanism.l2_norm_clip, microbatch_size=CHUNK)
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    step = jax.jit(synthesizer.step)

    @jax.jit
    def draw(key: jax.Array) -> tuple[Batch, jax.Array]:
        rows, mask = mechanism.sample(key)
        # Drawn but absent: the same as not in the data, since draws are independent.
        return Batch(images[rows], labels[rows], mask & allowed[rows], rows), rows < count

    @jax.jit
    def attack(params: PyTree, key: jax.Array, released: PyTree, known: PyTree) -> tuple[jax.Array, ...]:
        def own(example: PyTree) -> jax.Array:
            one = jax.tree.map(lambda x: x[None], (example, key))
            return ravel_pytree(clipped_sum(params, *one).clipped_sum)[0]

        each = jax.lax.map(own, (images[:count], labels[:count]), batch_size=CHUNK)
        surprise = mechanism.expected_batch_size * ravel_pytree(released)[0] - ravel_pytree(known)[0]
        return each @ surprise, each @ each.T, jnp.mean(surprise**2)

    init_key, sampling_key, attack_key = jax.random.split(key, 3)
    state = synthesizer.init(init_key)
    agreement, gram, variance = np.zeros(count), np.zeros((count, count)), 0.0
    for t in tqdm.trange(steps, disable=not progress, unit="step", dynamic_ncols=True):
        batch, are_canaries = draw(jax.random.fold_in(sampling_key, t))
        new, _ = step(state, batch)
        # The other records' part is known to the adversary of the definition: the same step without the canaries.
        others, _ = step(state, batch._replace(mask=batch.mask & ~are_canaries))
        seen = attack(state.params, jax.random.fold_in(attack_key, t), new.privacy.released, others.privacy.clipped_sum)
        agreement += np.asarray(seen[0], np.float64)
        gram += np.asarray(seen[1], np.float64)
        variance += float(seen[2]) / steps
        state = new
    return state, _guess(agreement, gram, variance, mechanism.sampling_probability)


def _guess(agreement: np.ndarray, gram: np.ndarray, variance: float, q: float) -> np.ndarray:
    """All coins at once, since canaries' gradients are alike: the mean of ``b`` given ``sum_t y_t = q C_t' b + noise``.

    Args:
      agreement: ``[m]``, ``sum_t C_t y_t`` for the ``[m, d]`` canaries' gradients ``C_t``.
      gram: ``[m, m]``, ``sum_t C_t C_t'``.
      variance: of a coordinate of ``y_t``, as it was seen: noise that is missing is noticed.
      q: sampling probability.
    """
    # A coin has mean 1/2 and variance 1/4; the last term keeps the system regular where there is no noise.
    ridge = 4 * variance + 1e-6 * q**2 * np.trace(gram) / len(gram)
    return np.linalg.solve(q**2 * gram + ridge * np.eye(len(gram)), q * agreement + ridge / 2)
