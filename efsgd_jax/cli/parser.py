"""What all command lines share: a person's mistake is one line on standard error and status 2, never a traceback."""

import argparse
import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import absl.logging

from efsgd_jax.errors import Stopped, UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

PREFIX = "--config."
STOPPED = 128 + 15  # as a shell says that a program ended by SIGTERM
EPSILON, METHOD = "privacy.epsilon", "method.name"


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` of one command that raises ``UserError``; flags are not abbreviated."""

    def __init__(self, command: str, **options: Any):
        module = "efsgd_jax.train" if command == "train" else f"efsgd_jax {command}"
        shown = f"efsgd {command}" if Path(sys.argv[0]).stem == "efsgd" else f"python -m {module}"
        super().__init__(prog=shown, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists the flags")


def program(main: Callable[[Sequence[str]], None]) -> Callable[..., int]:
    """Turns what a person can get wrong into one line and an exit status."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        # RDP orders that do not converge are left out, which is sound and not worth a line.
        absl.logging.set_verbosity(absl.logging.ERROR)
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.showwarning = _one_line_warning  # type: ignore[assignment]
        try:
            main(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except Stopped as stop:
            print(stop, file=sys.stderr)
            return STOPPED
        except KeyboardInterrupt:
            print("interrupted; the same command continues a training run from its last checkpoint", file=sys.stderr)
            return 130
        return 0

    return run


def _one_line_warning(message: Any, category: type[Warning], *rest: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The ``--config.KEY=VALUE`` and ``--config.KEY VALUE`` arguments as ``KEY=VALUE``, and the others."""
    overrides, others = [], []
    left = list(argv)
    while left:
        argument = left.pop(0)
        if not argument.startswith(PREFIX):
            others.append(argument)
        elif "=" not in argument and left and not left[0].startswith("--"):
            overrides.append(f"{argument.removeprefix(PREFIX)}={left.pop(0)}")
        else:
            overrides.append(argument.removeprefix(PREFIX))
    return overrides, others


def read_config(path: str | None, overrides: Iterable[str]) -> "ConfigDict":
    """The config at ``path``, or the default, with each ``KEY=VALUE`` applied.

    A config may have presets, chosen by ``preset=NAME``, and may suit its settings to ``privacy.epsilon``.

    Raises:
      UserError: no such config, preset or key, or a value of another type.
    """
    # Not at the top: accounting alone starts faster without Flax.
    from efsgd_jax.config import default_config, load_config, override, with_method

    values: dict[str, str] = {}
    for assignment in overrides:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UserError(f"{PREFIX}{assignment} has no value; write {PREFIX}{assignment}=VALUE")
        values[key] = value
    preset = values.pop("preset", None)
    if path is None and preset is not None:
        raise UserError(f"{PREFIX}preset={preset} needs a config that has presets, such as --config=configs/mnist.py")
    config = default_config()
    if path is not None:
        epsilon = None
        if EPSILON in values:
            override(config, EPSILON, values[EPSILON])
            epsilon = config.privacy.epsilon
        config = load_config(path, preset=preset, epsilon=epsilon)
    method = values.pop(METHOD, config.method.name)
    if method != config.method.name:
        config = with_method(config, method)
    for key, value in values.items():
        override(config, key, value)
    return config
