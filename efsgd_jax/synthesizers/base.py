"""The contract: what a synthesis method is to the runner. A short list of phases, and how images are drawn in the end.

A phase either reads private data, through the access that its mechanism opens and in no other way, or is
post-processing, and then it is never handed any. Phases are pure functions; the runner jits them, draws the keys, keeps
checkpoints and writes the ledger ahead. "Add a method" in the documentation builds one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule

PyTree = Any
# What earlier phases released, by their names.
Released = Mapping[str, PyTree]
Metrics = dict[str, jax.Array]


class Record(NamedTuple):
    """One training record, or several with a leading axis: ``image`` uint8 ``[S, S, C]``, ``label`` int."""

    image: jax.Array
    label: jax.Array


class Phase(NamedTuple):
    """One phase, bound to a data set's public shape.

    Attributes:
      plan: its name, mechanism, steps and budget, as the accountant has them.
      init: ``init(key, released) -> state``, a pytree. All of it is private.
      step: ``step(state, access, key) -> (state, metrics)``; metrics are scalars, private, and may be empty. Its
        ``key`` is for what is post-processing (latents, generated labels): draws of records, noise and the losses' own
        keys are the access's.
      release: ``release(state) -> pytree``: all that later phases, and the world, may see.
      view: ``view(record) -> row``, what of a ``Record`` the steps read; computed for each record once, before the
        first step. None for the record itself.
      warm_up: ``warm_up(state, access, key) -> state``, called before the first step with an access that must not
        release anything, ``warm_steps`` times. None for none.
      warm_steps: see ``warm_up``; they are not charged, since nothing that depends on them leaves but by a step.
      parameters: ``parameters(state)``: what must stay finite; None for what is released.
      shown: metrics that the progress line shows, in this order.
    """

    plan: PlannedPhase
    init: Callable[[jax.Array, Released], PyTree]
    step: Callable[[PyTree, Any, jax.Array], tuple[PyTree, Metrics]]
    release: Callable[[PyTree], PyTree]
    view: Callable[[Record], PyTree] | None = None
    warm_up: Callable[[PyTree, Any, jax.Array], PyTree] | None = None
    warm_steps: int = 0
    parameters: Callable[[PyTree], PyTree] | None = None
    shown: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The key of what it released."""
        return self.plan.name


# generate(params, key, labels) -> images: float32 [n, S, S, C] in (-1, 1) for int [n] labels.
Generate = Callable[[PyTree, jax.Array, jax.Array], jax.Array]


class Method(NamedTuple):
    """Everything that the programs need of a method. Its package exports one, as ``METHOD``.

    Attributes:
      hyperparameters: the dataclass behind ``config.method``.
      defaults: ``defaults() -> {group: dataclass}``, the keys that the method adds to the configuration.
      rules: ``rules(config)``: what their values must be.
      plan: ``plan(config, N)``: the phases as the accountant sees them, for N training records; a noise multiplier of 0
        is solved for.
      phases: ``phases(spec, hyperparameters, plan, mesh)``: the same phases, in the same order, to be run; ``plan`` has
        its noise now. What the last one releases is what is published. Raises ``UserError`` for images of an unusable
        shape.
      released_like: ``released_like(spec, hyperparameters)``: shapes and dtypes of what is published.
      make_generate: ``make_generate(spec, hyperparameters) -> Generate``: draws images from what is published.
      memory_hint: which keys to lower if it does not fit into memory.
      make_generator: ``make_generator(spec, hyperparameters)``: the Flax module of which the parameters are published;
        None if it is no network.
      shares_batches: whether several devices can take a step together.
    """

    hyperparameters: Callable[..., Any]
    defaults: Callable[[], dict[str, Any]]
    rules: Callable[[ConfigDict], list[Rule]]
    plan: Callable[[ConfigDict, int], Sequence[PlannedPhase]]
    phases: Callable[[ImageSpec, Any, Sequence[PlannedPhase], Mesh | None], Sequence[Phase]]
    released_like: Callable[[ImageSpec, Any], PyTree]
    make_generate: Callable[[ImageSpec, Any], Generate]
    memory_hint: str
    make_generator: Callable[[ImageSpec, Any], Any] | None = None
    shares_batches: bool = False

    def read(self, group: Mapping[str, Any]) -> Any:
        """``config.method`` as hyperparameters."""
        return self.hyperparameters(**{k: v for k, v in group.items() if k != "name"})


def network_like(make_generator: Callable[[ImageSpec, Any], Any]) -> Callable[[ImageSpec, Any], PyTree]:
    """``released_like`` of a Flax generator that is called with a latent and labels."""

    def like(spec: ImageSpec, hp: Any) -> PyTree:
        keys = {"params": jax.random.key(0), "noise": jax.random.key(0)}
        inputs = jnp.zeros((1, hp.latent)), jnp.zeros(1, jnp.int32)
        return jax.eval_shape(make_generator(spec, hp).init, keys, *inputs)

    return like
