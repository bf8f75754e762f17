"""Games on parameters of several leaves, through ``clipped_grad`` of a loss: padded microbatches, bad records, meshes.

In ``games.Game`` the gradients are given; here the library computes them from a loss, by each of its methods. The
adversary chooses the records and the loss. Record 0 is the canary. The contributions of the other records are known to
the adversary and subtracted from the release.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from efsgd_jax.audit.games import poisson
from efsgd_jax.audit.scores import every_coordinate
from efsgd_jax.privacy import DpSgdMechanism, Ledger, clipped_grad, sensitivity_of
from efsgd_jax.privacy.accounting import FINE
from efsgd_jax.privacy.devices import DATA

PyTree = Any
# Norm of the canary's gradient in multiples of the clip norm.
LENGTH = 10.0
# Shapes of the parameters of the games.
SHAPES = {"a": (3,), "b": (3,), "c": (2, 2), "d": ()}


def given(params: PyTree, gradient: PyTree, key: jax.Array) -> tuple[jax.Array, None]:
    """A loss whose gradient is the record."""
    del key
    return optax.tree.vdot(params, gradient), None


def convolved(params: PyTree, record: PyTree, key: jax.Array) -> tuple[jax.Array, None]:
    """A loss with a convolution; the kernel's gradient is the correlation of the record's image and its weights."""
    del key
    out = jax.lax.conv_general_dilated(
        record["image"][None], params["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.vdot(record["weights"], out[0] + params["bias"]), None


def looped(params: PyTree, record: PyTree, key: jax.Array) -> tuple[jax.Array, None]:
    """A loss with two loops: one multiplies by the same matrix in every iteration, one by the same scale."""
    del key
    h = jax.lax.fori_loop(0, 3, lambda _, h: h @ params["matrix"], record["x"])
    h, _ = jax.lax.scan(lambda h, shift: (h * params["scale"] + shift, None), h, record["shifts"])
    return jnp.vdot(record["weights"], h), None


@dataclasses.dataclass(frozen=True, eq=False)
class TreeGame:
    """One loss, one table of records and one adversary who sees every coordinate of every release.

    Attributes:
      name: name of the game, for the table.
      mechanism: the mechanism under attack, without feedback; its ``dataset_size`` counts the canary.
      loss: ``loss(params, record, key) -> (scalar, None)``.
      params: the parameters at which gradients are computed.
      records: pytree of the records, each leaf ``[N, ...]``; record 0 is the canary.
      steps: T, the number of steps.
      method: the argument of that name of ``clipped_grad``.
      microbatch_size: the argument of that name of ``clipped_grad``; the last microbatch has padding if it does not
        divide the capacity.
      devices: number of devices among which a batch is divided; so many must exist.
      tight: whether the claimed epsilon is exact for this adversary, so that with enough runs the lower bound comes
        close to it.
      score: function that returns the attack's score; see ``games.Game``.
    """

    name: str
    mechanism: DpSgdMechanism
    loss: Callable[[PyTree, PyTree, jax.Array], tuple[jax.Array, None]]
    params: PyTree
    records: PyTree
    steps: int = 1
    method: Literal["auto", "vmap", "ghost"] = "ghost"
    microbatch_size: int | None = None
    devices: int = 1
    tight: bool = False
    score: Callable[[jax.Array, jax.Array, Any], jax.Array] = every_coordinate

    def claimed(self, delta: float) -> float:
        """The upper bound under attack: the accountant's epsilon of the game's mechanism at ``delta``."""
        return Ledger(self.mechanism, math.inf, delta, self.steps).spent(self.steps, grid=FINE)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The attack's score of one run, with the canary if ``present``."""
        m = self.mechanism
        noise_key, sampling_key = jax.random.split(key)
        transform = m.unchecked_transform(noise_key)
        sums = clipped_grad(
            self.loss, m.l2_norm_clip, method=self.method, microbatch_size=self.microbatch_size, mesh=self._mesh()
        )
        # What the attack knows: each record's clipped gradient. Record 0 is the canary; the others are subtracted.
        adds, clip = self._added(), sensitivity_of(m.l2_norm_clip)

        def one_step(state: Any, step: jax.Array) -> tuple[Any, jax.Array]:
            rows, mask = poisson(sampling_key, step, present, m)
            keys = jax.random.split(jax.random.key(0), len(mask))
            total = sums(self.params, jax.tree.map(lambda x: x[rows], self.records), keys, mask)
            mean, new = transform.update(total, state, self.params)
            others = jnp.sum(jnp.where((mask & (rows != 0))[:, None], adds[rows], 0.0), axis=0)
            return new, (_flat(mean) * m.expected_batch_size - others) / (m.noise_multiplier * clip)

        _, seen = jax.lax.scan(one_step, transform.init(self.params), jnp.arange(self.steps))
        change = jnp.broadcast_to(adds[0] / (m.noise_multiplier * clip), seen.shape)
        return self.score(seen, change, m.sampling_probability)

    def _added(self) -> jax.Array:
        """What each record adds to a clipped sum by definition, ``[N, d]``; zeros if its gradient is not finite."""

        def gradient(record: PyTree) -> jax.Array:
            return _flat(jax.grad(self.loss, has_aux=True)(self.params, record, jax.random.key(0))[0])

        each = jax.vmap(gradient)(self.records)
        norms = jnp.linalg.norm(each, axis=1, keepdims=True)
        clip = sensitivity_of(self.mechanism.l2_norm_clip)
        return jnp.where(jnp.isfinite(norms), each * jnp.minimum(1.0, clip / jnp.maximum(norms, 1e-9)), 0.0)

    def _mesh(self) -> jax.sharding.Mesh | None:
        if self.devices == 1:
            return None
        return jax.make_mesh(
            (self.devices,), (DATA,), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[: self.devices]
        )


def _flat(tree: PyTree) -> jax.Array:
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def direction() -> dict[str, jax.Array]:
    """A pytree of four leaves with joint norm 1; the leaves have alternating signs."""
    size = sum(math.prod(shape) for shape in SHAPES.values())
    return {k: jnp.full(shape, (-1.0) ** i / math.sqrt(size)) for i, (k, shape) in enumerate(SHAPES.items())}


def of_leaves(
    name: str, mechanism: DpSgdMechanism, canary: float = LENGTH, others: tuple[float, ...] = (), **options: Any
) -> TreeGame:
    """A game on four leaves, two of one shape; all gradients are along ``direction``.

    Args:
      name: name of the game.
      mechanism: the mechanism under attack; the game has ``mechanism.dataset_size`` records.
      canary: norm of the canary's gradient in clip norms (with a sign), or NaN for a gradient that is not finite.
      others: the same of the other records; 0 for those that are not given.
      options: further fields of ``TreeGame``.
    """
    unit = direction()
    lengths = jnp.zeros(mechanism.dataset_size).at[: 1 + len(others)].set(jnp.array([canary, *others]))
    records = jax.tree.map(lambda u: jnp.tensordot(lengths, u, axes=0), unit)
    params = jax.tree.map(jnp.zeros_like, unit)
    return TreeGame(name, mechanism, given, params, records, **options)


def of_convolution(name: str, mechanism: DpSgdMechanism, **options: Any) -> TreeGame:
    """A game on a convolution's kernel and bias; the other records are images with small values."""
    n = mechanism.dataset_size
    size = jnp.where(jnp.arange(n) == 0, LENGTH, 0.1)[:, None, None, None]
    image = size * jnp.array([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0], [0.5, 2.0, 1.0]])[None, :, :, None]
    weights = jnp.broadcast_to(jnp.array([[1.0, 0.5], [-1.0, -0.25]])[None, :, :, None], (n, 2, 2, 1))
    params = {"kernel": jnp.zeros((2, 2, 1, 1)), "bias": jnp.zeros(1)}
    return TreeGame(name, mechanism, convolved, params, {"image": image, "weights": weights}, **options)


def of_loops(name: str, mechanism: DpSgdMechanism, **options: Any) -> TreeGame:
    """A game on a matrix in a ``fori_loop`` and a scale in a ``scan``; the other records have small values."""
    n = mechanism.dataset_size
    size = jnp.where(jnp.arange(n) == 0, LENGTH, 0.1)[:, None]
    records = {
        "x": size * jnp.array([1.0, -2.0]),
        "shifts": jnp.broadcast_to(jnp.array([[0.5, 0.1], [-0.3, 0.2]]), (n, 2, 2)),
        "weights": jnp.broadcast_to(jnp.array([1.0, 0.5]), (n, 2)),
    }
    params = {"matrix": jnp.array([[1.0, 0.5], [-0.5, 1.0]]), "scale": jnp.array(0.8)}
    return TreeGame(name, mechanism, looped, params, records, **options)


def devices_at_hand() -> int:
    """The number of devices that games on a mesh use, at most 4; with a single device there are no such games."""
    return min(4, jax.device_count())


def tree_games() -> list[TreeGame]:
    """The games on trees on the correct code, in which no violation may be found.

    A game on a mesh is included if there are several devices.
    """
    full = DpSgdMechanism(dataset_size=5, sampling_probability=1.0, capacity=5, noise_multiplier=1.0)
    sampled = DpSgdMechanism(dataset_size=6, sampling_probability=0.25, capacity=5, noise_multiplier=1.5)
    bad = (math.nan, 0.5, math.inf, -3.0)
    games = [
        of_leaves(
            "four leaves, padded microbatches, bad records, T = 1", full, others=bad, microbatch_size=4, tight=True
        ),
        of_leaves(
            "four leaves, Poisson, padded microbatches, bad records, T = 2",
            sampled,
            others=bad,
            microbatch_size=2,
            steps=2,
        ),
        of_convolution("convolution, T = 1", full, microbatch_size=3, tight=True),
        of_loops("loops, T = 1", full, microbatch_size=3, tight=True),
    ]
    if jax.device_count() > 1:
        name = f"four leaves, mesh of {devices_at_hand()}, T = 1"
        games.append(of_leaves(name, full, others=bad, microbatch_size=2, devices=devices_at_hand(), tight=True))
    return games
