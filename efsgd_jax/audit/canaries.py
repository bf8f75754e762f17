"""Audit of one training run: each canary takes part with probability 1/2, and the attack guesses which ones did."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from efsgd_jax.audit.bounds import area_under_curve, one_run_lower_bound, statistics
from efsgd_jax.audit.membership import MAX_IMAGES, nearness
from efsgd_jax.config import validate
from efsgd_jax.data import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.privacy import DpSgdMechanism, clipped_grad, fresh_key
from efsgd_jax.privacy.gradient_access import ExampleLoss, GradientAccess
from efsgd_jax.runs.sampling import draw
from efsgd_jax.synthesizers.base import Phase, Record
from efsgd_jax.training.setup import Setup, bind, dataset_of
from efsgd_jax.training.update import Inputs, keys_of_phase, open_access

PyTree = Any
# Number of canaries whose gradients are computed at a time.
CHUNK = 50


class RunAudit(NamedTuple):
    """The result of auditing one run with canaries.

    Attributes:
      claimed: the run's epsilon at ``delta``, by the accountant.
      delta: the delta at which the claim and the bounds hold.
      steps: number of private steps that were taken.
      canaries: number of canaries, of which about half took part.
      bounds: for each attack, by name, a lower bound of epsilon; the confidence is 95% for all of them together.
      curves: for each attack, by name, the area under its ROC curve; 0.5 is guessing.
    """

    claimed: float
    delta: float
    steps: int
    canaries: int
    bounds: dict[str, float]
    curves: dict[str, float]


class _Together(NamedTuple):
    """The canaries and the training records as one table.

    Attributes:
      record: the canaries, followed by the training records.
      present: bool, for each row of ``record``: whether it takes part.
      canary: bool, for each row of ``record``: whether it is a canary.
      canaries: the canaries alone.
    """

    record: Record
    present: jax.Array
    canary: jax.Array
    canaries: Record


class _RecordingAccess(GradientAccess):
    """``GradientAccess`` to the records that are present, which also records what the attack needs.

    Attributes:
      seen: ``C y``, ``C C^T`` and the mean of ``y^2``. C, ``[m, d]``, holds the clipped gradients of the m canaries; y
        is the released noisy sum of gradients minus the contributions of all records that are not canaries.
    """

    def __init__(self, mechanism: DpSgdMechanism, records: _Together, key: jax.Array, **shared: Any):
        super().__init__(mechanism, records.record, key, **shared)
        # A record that is sampled but not present is masked out. Since records are sampled independently, this is the
        # same as if it were not in the data, unless the batch is full.
        self._mask = self._mask & records.present[self._rows]
        self._others = self._mask & ~records.canary[self._rows]
        self._all = records
        self.seen: tuple[jax.Array, ...] = ()

    def clipped_gradient(
        self, loss: ExampleLoss, params: PyTree, residual: PyTree, *, microbatch_size: int | None = None
    ) -> tuple[PyTree, PyTree]:
        gradient, new = super().clipped_gradient(loss, params, residual, microbatch_size=microbatch_size)
        # The adversary in the definition of differential privacy knows the other records, and so their contribution.
        known = self._clipped_sum(loss, params, residual, microbatch_size, self._others).clipped_sum
        of_one = clipped_grad(loss, self._mechanism.l2_norm_clip)
        key = jax.random.fold_in(self._loss_key, 1)

        def own(example: PyTree) -> jax.Array:
            one = jax.tree.map(lambda x: x[None], (example, key))
            return ravel_pytree(of_one(params, *one).clipped_sum)[0]

        each = jax.lax.map(own, self._all.canaries, batch_size=CHUNK)
        unexplained = self._mechanism.expected_batch_size * ravel_pytree(gradient)[0] - ravel_pytree(known)[0]
        self.seen = each @ unexplained, each @ each.T, jnp.mean(unexplained**2)
        return gradient, new


class _Recording(DpSgdMechanism):
    """``DpSgdMechanism`` whose ``open`` returns a ``_RecordingAccess``."""

    def open(self, records: Any, key: jax.Array, step: jax.Array, **shared: Any) -> _RecordingAccess:
        del step
        return _RecordingAccess(self, records, key, **shared)


def make_canaries(spec: ImageSpec, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Makes images that are unlike any training record: random black and white blocks, with random labels.

    Args:
      spec: size, channels and number of classes of the data set.
      count: number of canaries.
      rng: source of randomness.

    Returns:
      The images, uint8 ``[count, S, S, C]``, and their labels, int32 ``[count]``.
    """
    blocks = rng.integers(2, size=(count, 4, 4, spec.channels), dtype=np.uint8) * 255
    rows = np.arange(spec.image_size) * 4 // spec.image_size
    return blocks[:, rows][:, :, rows], rng.integers(spec.num_classes, size=count).astype(np.int32)


def audit_run(config: ConfigDict, *, canaries: int = 200, seed: int | None = None, progress: bool = True) -> RunAudit:
    """Trains once, as ``fit`` would, on the data and about half of the canaries, and attacks all released values.

    Two attacks score each canary. *White box*: a least-squares regression of the noisy gradients of all steps, minus
    the contributions of all records that are not canaries, on the canaries' own clipped gradients at the same
    parameters. This is the adversary in the definition of differential privacy. *Black box*: the distance from the
    canary to the nearest image of the released generator.

    Args:
      config: the configuration of the run; its noise is calibrated for the data including the canaries.
      canaries: m, the number of canaries, at least 20.
      seed: seed of the canaries, of who takes part, and of batches and noise, to reproduce a run; None takes
        them from the operating system's random source.
      progress: show a progress bar on standard error.

    Raises:
      UserError: a bad configuration, a phase that is not DP-SGD, too few canaries, or jax-privacy is not installed.

    Formal guarantees:
      Canaries take part independently, each with probability 1/2, which is what the bound needs (Steinke et al., 2023).
      Nothing is written to disk. Nothing of the run may be released, since no guarantee covers it.
    """
    if canaries < 20:
        raise UserError(f"{canaries} canaries cannot show anything; use at least 20")
    statistics()  # raises before the training if jax-privacy is not installed
    validate(config)
    if config.data.groups:
        raise UserError(
            "canaries are single images, and with --config.data.groups the unit is a person; audit the mechanisms: "
            "efsgd audit"
        )
    if config.privacy.region:
        raise UserError(
            "canaries are whole images, and with --config.privacy.region only some pixels are protected; audit the "
            "mechanisms: efsgd audit"
        )
    dataset = dataset_of(config)
    rng = np.random.default_rng(seed)
    images, labels = make_canaries(dataset.spec, canaries, rng)
    present = rng.random(canaries) < 0.5
    together = dataclasses.replace(
        dataset,
        train_images=np.concatenate([images, dataset.train_images]),
        train_labels=np.concatenate([labels, dataset.train_labels]),
    )
    setup = bind(config, together, _recording)
    ledger = setup.ledger
    run_key, image_key = jax.random.split(fresh_key() if seed is None else jax.random.key(seed))
    released, white = _train(setup, present, run_key, progress)
    drawn_labels = np.arange(min(len(dataset.train_labels), MAX_IMAGES)) % dataset.spec.num_classes
    drawn = np.concatenate(list(draw(jax.jit(setup.generate), released, image_key, drawn_labels)))
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


def _recording(mechanism: Any) -> Any:
    """The same mechanism, whose access records what the attack needs."""
    if not isinstance(mechanism, DpSgdMechanism):
        raise UserError(
            "canaries attack clipped gradients of single images, and this method has a phase without; audit its "
            "mechanisms: efsgd audit"
        )
    return _Recording(*mechanism)


def _train(setup: Setup, present: np.ndarray, key: jax.Array, progress: bool) -> tuple[PyTree, np.ndarray]:
    """Trains, and returns what the last phase releases and the white-box score of each canary.

    The canaries are the first rows of the data set; ``present`` says which of them take part.
    """
    data, count, n = setup.dataset, len(present), len(setup.dataset.train_labels)
    every = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels, jnp.int32))
    records = _Together(
        every,
        jnp.concatenate([jnp.asarray(present), jnp.ones(n - count, bool)]),
        jnp.arange(n) < count,
        jax.tree.map(lambda x: x[:count], every),
    )
    released: dict[str, PyTree] = {}
    agreement, gram, variance, q = np.zeros(count), np.zeros((count, count)), 0.0, 0.0
    for i, phase in enumerate(setup.phases):
        mechanism = phase.plan.mechanism
        keys = keys_of_phase(key, i)

        @jax.jit
        def step(state: PyTree, t: jax.Array, inputs: Inputs, phase: Phase = phase) -> tuple[PyTree, Any]:
            access: Any = open_access(phase, inputs, t, None)
            state, _ = phase.step(state, access, jax.random.fold_in(inputs.step_key, t))
            return state, access.seen if phase.plan.mechanism is not None else ()

        inputs = Inputs(keys.access, keys.step, records, released)
        state = phase.init(keys.init, released)
        for t in tqdm.trange(phase.plan.steps, disable=not progress, unit="step", dynamic_ncols=True):
            state, seen = step(state, jnp.int32(t), inputs)
            if seen:
                agreement += np.asarray(seen[0], np.float64)
                gram += np.asarray(seen[1], np.float64)
                variance += float(seen[2]) / setup.ledger.steps
        if isinstance(mechanism, DpSgdMechanism):
            q = mechanism.sampling_probability
        released = {**released, phase.name: jax.device_get(phase.release(state))}
    return released[setup.phases[-1].name], _guess(agreement, gram, variance, q)


def _guess(agreement: np.ndarray, gram: np.ndarray, variance: float, q: float) -> np.ndarray:
    """Scores of the canaries: estimates of b, where b_i is 1 if canary i takes part and 0 otherwise.

    The model is ``y_t = q C_t' b + noise`` in every step t, where ' is the transpose; the result is the posterior mean
    of b, as for Gaussians. All b_i are estimated together, since the canaries' gradients are correlated.

    Args:
      agreement: ``[m]``, ``sum_t C_t y_t``, where ``C_t``, ``[m, d]``, holds the canaries' gradients.
      gram: ``[m, m]``, ``sum_t C_t C_t'``.
      variance: the observed variance of a coordinate of ``y_t``; it is not taken from the claim, so that missing noise
        is noticed.
      q: sampling probability.
    """
    # Each b_i has mean 1/2 and variance 1/4; the last term keeps the system regular if there is no noise.
    ridge = 4 * variance + 1e-6 * q**2 * np.trace(gram) / len(gram)
    return np.linalg.solve(q**2 * gram + ridge * np.eye(len(gram)), q * agreement + ridge / 2)
