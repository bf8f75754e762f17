"""A method for the tests: a full-batch release, then post-processing, then DP-SGD, of two budgets.

The mean of each class is measured, its contrast is raised, and gradients of |mean - image|^2 move it on.
"""

import dataclasses

import jax
import jax.numpy as jnp

from efsgd_jax.privacy import Budget, DpSgdMechanism, FullBatchMechanism, PlannedPhase, VectorSum
from efsgd_jax.synthesizers.base import Method, Phase


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """All that there is.

    Attributes:
      learning_rate: of the third phase.
      share: of epsilon, for the first.
    """

    learning_rate: float = 0.1
    share: float = 0.3


def plan(config, dataset_size):
    share, sigma = config.method.share, config.privacy.noise_multiplier
    gradients = DpSgdMechanism(dataset_size, 0.5, dataset_size, sigma)
    return [
        PlannedPhase("means", FullBatchMechanism(dataset_size, sigma, steps=2), 2, Budget("means", share)),
        PlannedPhase("contrast", None, 3),
        PlannedPhase("gradients", gradients, 4, Budget("gradients", 1 - share)),
    ]


def phases(spec, hp, plan, mesh):
    nothing = jnp.zeros((spec.num_classes, *spec.shape))
    mechanism = plan[2].mechanism

    def measure(state, access, key):
        term = VectorSum(lambda row: row[0].reshape(-1), 4.0, count_weight=1.0)
        (found,), _ = access.release([term], group=lambda row: row[1], num_groups=spec.num_classes)
        sums, counts = found
        return state + 0.5 * (sums / jnp.maximum(counts, 1.0)[:, None]).reshape(nothing.shape), {}

    def sharpen(state, access, key):
        return 1.1 * state + 0.01 * jax.random.normal(key, state.shape), {}

    def loss(means, row, key):
        error = jnp.sum(jnp.square(means[row[1]] - row[0]))
        return error, {"error": error}

    def descend(state, access, key):
        means, residual = state
        gradient, residual = access.clipped_gradient(loss, means, residual)
        return (means - hp.learning_rate * gradient, residual), {}

    def view(record, released):
        return record.image / 255.0, record.label

    return [
        Phase(plan[0], lambda key, released: nothing, measure, lambda state: state, view=view),
        Phase(plan[1], lambda key, released: released["means"], sharpen, lambda state: state),
        Phase(
            plan[2],
            lambda key, released: (released["contrast"], mechanism.initial_residual(nothing)),
            descend,
            lambda state: {"means": state[0]},
            view=view,
        ),
    ]


def make_generate(spec, hp):
    return lambda params, key, labels: jnp.clip(2 * params["means"][labels] - 1, -1.0, 1.0)


METHOD = Method(
    Hyperparameters,
    lambda: {"method": Hyperparameters()},
    lambda config: [("method.share", config.method.share, 0 < config.method.share < 1, "between 0 and 1")],
    plan,
    phases,
    lambda spec, hp: {"means": jax.ShapeDtypeStruct((spec.num_classes, *spec.shape), jnp.float32)},
    make_generate,
    memory_hint="config.data.image_size",
)
