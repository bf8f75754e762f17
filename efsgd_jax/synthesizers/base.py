"""The contract between a synthesis method and the runner: a list of phases, and a function that generates images.

A phase reads private data only through the access that its mechanism opens. A phase without a mechanism is
post-processing and never gets private data. Phases are pure functions. The runner compiles them, derives their PRNG
keys, saves checkpoints, and writes to the ledger before each block of steps. "Add a method" in the documentation has an
example.
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
# Maps the name of each earlier phase to what it released.
Released = Mapping[str, PyTree]
Metrics = dict[str, jax.Array]


class Record(NamedTuple):
    """One training record: ``image`` uint8 ``[S, S, C]`` and ``label`` int. Several records have a leading axis."""

    image: jax.Array
    label: jax.Array


class Phase(NamedTuple):
    """One phase of a run, bound to the public shape of a data set.

    Attributes:
      plan: the phase's name, mechanism, number of steps and budget, as the accountant sees them.
      init: ``init(key, released) -> state`` returns the initial state, a pytree. All of it is private.
      step: ``step(state, access, key) -> (state, metrics)`` takes one step. The metrics are private scalars; the
        dictionary may be empty. ``key`` is for post-processing (latents, generated labels). The access has its own keys
        for sampling records, for the noise and for the losses.
      release: ``release(state) -> pytree`` returns all that later phases, and the public, may see.
      view: ``view(record, released) -> row`` computes the part or function of a ``Record`` that the steps read, given
        what earlier phases released. It is evaluated once for each record, before the first step. If several phases in
        a row have the same function as view, it is evaluated before the first of them. None if the steps read the
        record itself.
      warm_up: ``warm_up(state, access, key) -> state`` is called ``warm_steps`` times before the first step, with an
        access that must not release anything. None if the phase has no warm-up.
      warm_steps: number of calls of ``warm_up``. They spend no budget, because whatever depends on them leaves the
        phase only through a step.
      parameters: ``parameters(state)`` returns the values that are checked to be finite. None to check what
        ``release`` returns.
      shown: names of the metrics that the progress line shows, in this order.
      loops_on_cpu: whether a CPU, too, takes several steps in one program, as accelerators always do. XLA then computes
        once what all steps share, but compiles convolutions in loops to slower ones.
    """

    plan: PlannedPhase
    init: Callable[[jax.Array, Released], PyTree]
    step: Callable[[PyTree, Any, jax.Array], tuple[PyTree, Metrics]]
    release: Callable[[PyTree], PyTree]
    view: Callable[[Record, Released], PyTree] | None = None
    warm_up: Callable[[PyTree, Any, jax.Array], PyTree] | None = None
    warm_steps: int = 0
    parameters: Callable[[PyTree], PyTree] | None = None
    shown: tuple[str, ...] = ()
    loops_on_cpu: bool = False

    @property
    def name(self) -> str:
        """The phase's name, under which later phases find what it released."""
        return self.plan.name


# generate(params, key, labels) -> images: labels int [n]; images float32 [n, S, S, C] with values in [-1, 1].
Generate = Callable[[PyTree, jax.Array, jax.Array], jax.Array]


class Method(NamedTuple):
    """A synthesis method, as the rest of the library uses it. Each method's package exports one as ``METHOD``.

    Attributes:
      hyperparameters: the dataclass whose fields are the keys of ``config.method``.
      defaults: ``defaults() -> {group: dataclass}`` returns the keys that the method adds to the configuration, with
        their default values.
      rules: ``rules(config)`` returns the rules that the values of these keys must satisfy.
      plan: ``plan(config, N)`` returns the phases as the accountant sees them, for N training records. A noise
        multiplier of 0 means that calibration finds it.
      phases: ``phases(spec, hyperparameters, plan, mesh)`` returns the same phases, in the same order, ready to run.
        ``plan`` now includes the calibrated noise. ``mesh`` has the devices over which a batch is split; None for one
        device. The release of the last phase is published. Raises ``UserError`` if the method cannot use images of this
        shape.
      released_like: ``released_like(spec, hyperparameters)`` returns the shapes and dtypes of what is published.
      make_generate: ``make_generate(spec, hyperparameters) -> Generate`` returns the function that samples images from
        what is published.
      memory_hint: the config keys to lower if training runs out of memory.
      make_generator: ``make_generator(spec, hyperparameters)`` returns the Flax module whose parameters are published.
        None if the published model is not a network.
      make_log_likelihood: ``make_log_likelihood(spec, hyperparameters)`` returns ``f(params, images, labels)``, the
        log-likelihoods ``[N]`` of images uint8 ``[N, S, S, C]``, by which the audit attacks. None if they are unknown.
      shares_batches: whether several devices can divide the records that a step reads among themselves.
      reads_units: whether the unit may be a group of images, such as those of a person (``privacy.units``).
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
    make_log_likelihood: Callable[[ImageSpec, Any], Callable[[PyTree, jax.Array, jax.Array], jax.Array]] | None = None
    shares_batches: bool = False
    reads_units: bool = True

    def read(self, group: Mapping[str, Any]) -> Any:
        """Converts the group ``config.method`` to hyperparameters, leaving out the method's name."""
        return self.hyperparameters(**{k: v for k, v in group.items() if k != "name"})


def network_like(make_generator: Callable[[ImageSpec, Any], Any]) -> Callable[[ImageSpec, Any], PyTree]:
    """Returns ``Method.released_like`` for a Flax generator whose inputs are latents and labels."""

    def like(spec: ImageSpec, hp: Any) -> PyTree:
        keys = {"params": jax.random.key(0), "noise": jax.random.key(0)}
        inputs = jnp.zeros((1, hp.latent)), jnp.zeros(1, jnp.int32)
        return jax.eval_shape(make_generator(spec, hp).init, keys, *inputs)

    return like
