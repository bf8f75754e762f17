"""``efsgd``: runs the command that its first argument names, and prints completion scripts for shells."""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from efsgd_jax.cli.parser import PREFIX, program
from efsgd_jax.errors import UserError
from efsgd_jax.versions import version_of

# Name of each command -> the module with its ``main`` and ``make_parser``, and a description for the help.
COMMANDS = {
    "doctor": ("efsgd_jax.cli.doctor", "look at your images before any training"),
    "prepare": ("efsgd_jax.cli.prepare", "write images once as arrays on disk, if memory is short"),
    "train": ("efsgd_jax.cli.train", "train a private generator, or continue a run"),
    "pretrain": ("efsgd_jax.cli.pretrain", "train a network on public images, for private runs"),
    "stop": ("efsgd_jax.cli.stop", "end a training run, and release it if asked"),
    "sample": ("efsgd_jax.cli.sample", "draw synthetic images from a finished run"),
    "evaluate": ("efsgd_jax.cli.evaluate", "score a run, or any images, by real data"),
    "report": ("efsgd_jax.cli.report", "one HTML page of a run"),
    "compare": ("efsgd_jax.cli.compare", "several runs in one table"),
    "release": ("efsgd_jax.cli.release", "pack what may be published, or refuse"),
    "release_score": ("efsgd_jax.cli.release_score", "publish a score with noise, and charge it"),
    "export": ("efsgd_jax.cli.export", "write a generator as StableHLO and safetensors"),
    "table": ("efsgd_jax.cli.table", "synthetic rows of a small table, such as metadata"),
    "protect": ("efsgd_jax.cli.protect", "protect data by other means: no epsilon"),
    "privacy": ("efsgd_jax.cli.privacy", "what would it cost? No data needed"),
    "plan": ("efsgd_jax.cli.plan", "what would a step cost, on how many devices? No data needed"),
    "audit": ("efsgd_jax.cli.audit", "attack the guarantee"),
}
SHELLS = ("bash", "zsh")
HELP = f"""usage: efsgd COMMAND ...

Publish images without publishing the people in them: differentially private image generators in JAX.

{"".join(f"  {name:14} {what}{chr(10)}" for name, (_, what) in COMMANDS.items())}
  completion     print a completion script: efsgd completion {"|".join(SHELLS)}
  --version      print the version

efsgd COMMAND --help says more. Begin with: efsgd train --config=preset:digits --workdir=runs/digits"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in ``argv`` (None for the program's arguments), and returns its exit status."""
    # The "" at the end stands for the missing command if there are no arguments; otherwise it is the last of ``rest``.
    first, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if first in COMMANDS:
        return importlib.import_module(COMMANDS[first][0]).main(rest[:-1])
    return _about([first, *rest[:-1]])


@program
def _about(argv: Sequence[str]) -> None:
    first, *rest = argv
    if first in ("", "-h", "--help", "help"):
        print(HELP)
    elif first == "--version":
        print(f"efsgd_jax {version_of('efsgd_jax')}")
    elif first == "completion":
        if len(rest) != 1 or rest[0] not in SHELLS:
            raise UserError(f"efsgd completion needs the name of a shell: {', '.join(SHELLS)}")
        import shtab

        print(shtab.complete(_all_commands(), shell=rest[0]))
    else:
        raise UserError(f"unknown command {first!r}; there are {', '.join(COMMANDS)} and completion")


def _all_commands() -> argparse.ArgumentParser:
    """A parser with the flags of every command, from which shtab makes completion scripts.

    The values of ``--config`` are the packaged configs, and each config key is a flag.
    """
    import shtab

    from efsgd_jax.config import PACKAGED, default_config, packaged_configs
    from efsgd_jax.synthesizers import method_names

    keys = sorted({key for method in method_names() for key in _keys(default_config(method))} | {"preset"})
    parser = argparse.ArgumentParser(prog="efsgd")
    commands = parser.add_subparsers(dest="command")
    for name, (module, what) in COMMANDS.items():
        of_command = importlib.import_module(module).make_parser()
        for action in of_command._actions:
            if action.dest == "config":
                action.choices = [f"{PACKAGED}{name}" for name in packaged_configs()]
                for key in keys:
                    of_command.add_argument(f"{PREFIX}{key}")
            elif action.dest in ("workdir", "runs", "out"):
                action.complete = shtab.DIRECTORY
        commands.add_parser(name, parents=[of_command], add_help=False, help=what)
    completion = commands.add_parser("completion", help="print a completion script")
    completion.add_argument("shell", choices=SHELLS)
    return parser


def _keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """The dotted names of all keys of a configuration."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key
