"""The command line of ``python -m efsgd_jax.train``: parses arguments, calls ``fit`` and prints what was spent."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import PREFIX, Parser, program, read_config, show, split_overrides
from efsgd_jax.config import PACKAGED, packaged_configs, presets_of
from efsgd_jax.config_keys import explain, explain_all
from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.runs.fit import fit
from efsgd_jax.training.devices import is_first, join_processes
from efsgd_jax.training.trackers import TRACKERS

HELP = "--help="


def make_parser() -> Parser:
    parser = Parser(
        "train",
        description="Train a differentially private image generator, or continue a killed run.",
    )
    parser.add_argument("--workdir", required=True, help="directory of the run")
    parser.add_argument("--config", help="a config, such as preset:folder or configs/digits.py")
    parser.add_argument(
        "--trackers", default="tensorboard", help=f"some of {','.join(TRACKERS)}, or none: they get the losses, which "
        "are private; wandb works in files unless WANDB_MODE=online",
    )  # fmt: skip
    parser.add_argument(
        "--distributed", action="store_true",
        help="one of several processes that train together: on Slurm, Kubernetes and TPU pods they find each other; "
        "elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
    )  # fmt: skip
    parser.epilog = (
        "--config.KEY=VALUE or --config.KEY VALUE changes one key, such as --config.privacy.epsilon=1; --help=TEXT "
        "explains the keys that contain TEXT, --help=. all of them"
    )
    return parser.with_json()


def _presets(paths: Sequence[str]) -> str:
    """What ``--config.preset`` may be: for a config without presets "", without a config those that have some."""
    if paths:
        own = presets_of(paths[0])
        return f"one of {', '.join(own)}" if own else ""
    names = [name for name in packaged_configs() if presets_of(f"{PACKAGED}{name}")]
    return f"one of the presets of a config that has some, such as {', '.join(names)}"


def _keys(text: str, rest: Sequence[str], overrides: Sequence[str]) -> str:
    """The text that ``--help=TEXT`` prints: the keys that contain TEXT, for the method that the other flags configure.

    Without such flags, it has the keys of all methods.

    Raises:
      UserError: no key contains the text.
    """
    paths = [a.removeprefix("--config=") for a in rest if a.startswith("--config=")]
    text = text.removeprefix(PREFIX)
    if not paths and not overrides:
        found, of = explain_all(text), "any method"
    else:
        config = read_config(paths[0] if paths else None, overrides)
        found, of = explain(config, text), config.method.name
    if text and text in "preset" and (has := _presets(paths)):
        preset = f"--config.preset  (str)\n    {has}: it sets several of the other keys."
        found = "\n".join(filter(None, (found, preset)))
    if not found:
        raise UserError(f"no config key of {of} contains {text!r}; --help=. lists all")
    return found


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    asked = [a.removeprefix(HELP) for a in rest if a.startswith(HELP)]
    if asked:
        print(_keys(asked[0], rest, overrides))
        return
    args = make_parser().parse_args(rest)
    if not args.config:
        raise UserError(
            "--config is missing: --config=preset:folder with --config.data.path=PICTURES for pictures of your own, or "
            "--config=preset:digits for a demonstration"
        )
    config = read_config(args.config, overrides)
    if args.distributed:
        join_processes()
    trackers = () if args.trackers == "none" else tuple(args.trackers.split(","))
    result = fit(config, args.workdir, trackers=trackers)
    if not is_first():
        return
    lines = []
    if not result.privacy["guarantee"]:
        lines.append(f"NOT PRIVATE: {result.privacy['reason_for_no_guarantee']}")
    lines.append(
        f"epsilon spent  {format_epsilon(result.epsilon)} at delta {result.delta:g}, after {result.steps} private "
        f"steps, for {result.privacy['unit']}"
    )
    meanings = result.privacy.get("accounting_meanings", {})
    for name, value in result.privacy.get("accountings", {}).items():
        shown = f"{value:>8.4g}" if isinstance(value, float) else f"{value:>8}"
        lines.append(f"  {shown}  {meanings[name]}")
    lines += [f"sample grid    {result.samples}", f"release        {result.workdir / 'release'}"]
    found = {"workdir": result.workdir, "samples": result.samples, "release": result.workdir / "release"}
    show(args, {**found, "steps": result.steps, "privacy": result.privacy}, "\n".join(lines))
