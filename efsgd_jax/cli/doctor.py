"""The command line of ``efsgd doctor``: parses arguments, calls ``examine`` and prints the result."""

from collections.abc import Sequence
from typing import Any

from efsgd_jax.cli.data_options import data_options
from efsgd_jax.cli.parser import Parser, program, show, split_overrides
from efsgd_jax.runs.doctor import examine


def make_parser() -> Parser:
    parser = Parser(
        "doctor", description="Look at images before any training. Nothing is written; the output is private."
    )
    parser.add_argument("data", help="a directory, .zip, .npz or .parquet file")
    parser.epilog = "--config.data.KEY=VALUE says how to read them, such as --config.data.groups=patients.csv"
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    args = make_parser().parse_args(rest)
    found = examine(args.data, data_options(overrides, "doctor"))
    show(args, found, to_text(found))


def to_text(found: dict[str, Any]) -> str:
    """What ``examine`` found, for people."""
    facts = found["facts"]
    low, mean, high = facts["brightness"]
    side, _, channels = facts["shape"]
    lines = [
        "This describes private images: do not publish it.",
        "",
        f"source      {found['source']}",
        f"images      {facts['training']} training, {facts['held_out']} held out",
        f"shape       {found['own_size']}, read as {side}x{side}, {'grey' if channels == 1 else 'RGB'}",
        f"brightness  {low} to {high}, {mean} on average, {facts['corners']} in the corners (255 is white)",
    ]
    if "groups" in facts:
        fewest, median, most = facts["images_per_group"]
        lines.append(f"persons     {facts['groups']}, with {fewest} to {most} images each, most about {median}")
    else:
        lines.append(
            "persons     not known: a guarantee is for one image. If a person may be in several, name a list of who is "
            "in which by --config.data.groups=FILE.csv"
        )
    lines += [
        f"class       {name}: {count['training']} training, {count['held_out']} held out"
        for name, count in facts["classes"].items()
    ]
    lines += [
        f"duplicates  {facts['identical']} identical, {facts['nearly_identical']} nearly identical by a coarse "
        f"comparison of {facts['compared']}; plain pictures count too; repeats of one person or place need "
        "--config.data.groups",
        *(f"warning     {warning}" for warning in found["warnings"]),
        "",
        f"What to expect, in the words of the report's verdict, by a curve that was measured on {found['curve']}; a "
        "rough guide, which does not regard the size of the images. What the method cannot draw comes on top, such as "
        "fine texture, or more than one object in a picture; in colour that may cost several times as much, and "
        "variety too:",
        *(f"  epsilon {epsilon:4} {likely['says']}" for epsilon, likely in found["likely"].items()),
        "",
        "Public in every run, and not protected: " + "; ".join(_public(found["public"])) + ".",
        "",
        *(
            [
                "Advice: do not train on these. With so few records a class the images would be mostly noise, and each "
                "try that you publish spends epsilon. More persons or images, or fewer classes, would help."
            ]
            if found["hopeless"]
            else []
        ),
        "Decide on epsilon first, and once (docs/data_owners.md: aim at 1 for faces and medical images), and put it in "
        "the place of EPSILON. "
        + ("If you still want to see it" if found["hopeless"] else "Then try this")
        + f", roughly {max(found['minutes'], 0.1):.1f} minutes if this machine is idle: {found['config']['why']}.",
        f"  {found['config']['command']}",
        "This advice depends on your images. No epsilon covers settings that were chosen by looking at them: say so.",
    ]
    return "\n".join(lines)


def _public(public: dict[str, Any]) -> list[str]:
    return [f"{key}: {', '.join(value) if isinstance(value, list) else value}" for key, value in public.items()]
