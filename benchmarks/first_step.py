"""What the first step of a phase wants: its first state and its inputs, as the runner makes them."""

from collections.abc import Mapping
from typing import Any

import jax

from efsgd_jax.synthesizers.base import Phase, Record
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.update import Inputs, keys_of_phase
from efsgd_jax.training.views import view_all


def state_and_inputs(phase: Phase, records: Record, released: Mapping[str, Any] | None = None) -> tuple[Any, Inputs]:
    """Of a phase that reads ``records``, after phases that released ``released``."""
    keys = keys_of_phase(jax.random.key(0), 0)
    rows = view_all(phase.view, records, released or {}) if phase.view else records
    assert phase.plan.mechanism is not None
    inputs = Inputs(keys.access, keys.step, phase.plan.mechanism.arrange(keys.arrange, rows), released or {})
    return jax.jit(phase.init, compiler_options=compiler_options())(keys.init, released or {}), inputs
