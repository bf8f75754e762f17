"""The parts that all commands share: parsing flags and configs, and printing user errors as one line with status 2."""

import argparse
import functools
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import absl.logging

from efsgd_jax.errors import Stopped, UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# Prefix of the flags that change a config key.
PREFIX = "--config."
CLOSED_PIPE = 128 + 13  # the same for SIGPIPE
STOPPED = 128 + 15  # the exit status by which shells report that a program was ended by SIGTERM
# Keys that ``read_config`` treats before the others.
EPSILON, METHOD = "privacy.epsilon", "method.name"


class Parser(argparse.ArgumentParser):
    """The ``ArgumentParser`` of one command. It raises ``UserError``, and does not accept abbreviated flags."""

    def __init__(self, command: str, **options: Any):
        module = "efsgd_jax.train" if command == "train" else f"efsgd_jax {command}"
        shown = f"efsgd {command}" if Path(sys.argv[0]).stem == "efsgd" else f"python -m {module}"
        super().__init__(prog=shown, allow_abbrev=False, **options)

    def with_json(self) -> "Parser":
        """Adds the flag ``--json``; ``show`` obeys it."""
        self.add_argument("--json", action="store_true", help="print the result as one JSON object")
        return self

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists the flags")


def show(args: argparse.Namespace, value: Any, text: str) -> None:
    """Prints a command's result: ``value`` as JSON if ``--json`` was given, else ``text``. Infinity becomes "inf"."""
    print(json.dumps(_finite(value), indent=2) if args.json else text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return str(value) if isinstance(value, Path) or (isinstance(value, float) and not math.isfinite(value)) else value


def program(main: Callable[[Sequence[str]], None]) -> Callable[..., int]:
    """Decorates the ``main`` of a command: user errors become one line on standard error and an exit status."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        # dp-accounting leaves out RDP orders for which a series does not converge, and logs that. The minimum over the
        # other orders is still a valid epsilon, so that these messages are not shown.
        absl.logging.set_verbosity(absl.logging.ERROR)
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.showwarning = _one_line_warning  # type: ignore[assignment]
        try:
            main(sys.argv[1:] if argv is None else argv)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of a pipe, such as head, has ended: as other programs, end without a word
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except Stopped as stop:
            print(stop, file=sys.stderr)
            return STOPPED
        except KeyboardInterrupt:
            print("interrupted; to continue a training run, run the same command again", file=sys.stderr)
            return 130
        return 0

    return run


def _one_line_warning(message: Any, category: type[Warning], *rest: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits arguments into config overrides, as ``KEY=VALUE``, and all others.

    Overrides are given as ``--config.KEY=VALUE`` or ``--config.KEY VALUE``.
    """
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
    """Reads the config file at ``path``, or takes the default configuration, and applies each override ``KEY=VALUE``.

    ``preset=NAME`` chooses a preset, if the config file has any. The file may choose its settings by the value of
    ``privacy.epsilon``, which is therefore passed to it. ``method.name`` changes the method before other overrides.

    Raises:
      UserError: there is no such config, preset or key, or a value has the wrong type.
    """
    # Imported here, because accounting alone starts faster without Flax.
    from efsgd_jax.config import default_config, load_config, override, with_method

    values: dict[str, str] = {}
    for assignment in overrides:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UserError(f"{PREFIX}{assignment} has no value; write {PREFIX}{assignment}=VALUE")
        values[key] = value
    preset = values.pop("preset", None)
    if path is None and preset is not None:
        raise UserError(f"{PREFIX}preset={preset} needs a config with presets, such as --config=preset:mixture_mnist")
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
