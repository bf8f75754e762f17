"""The command line of ``efsgd protect confound``: parses arguments, calls ``confound`` and writes what it made."""

import sys
from collections.abc import Sequence
from pathlib import Path

from efsgd_jax.cli.data_options import data_options
from efsgd_jax.cli.parser import Parser, program, show, split_overrides
from efsgd_jax.errors import UserError
from efsgd_jax.files import check_new_directory


def make_parser() -> Parser:
    parser = Parser(
        "protect confound",
        description="Add noise that is hardly seen to labelled images, so that a network that is trained on them "
        "learns the noise (ConfounderGAN): no guarantee. Attacks on the result are part of the command.",
    )
    parser.add_argument("data", help="a directory of class folders, .zip, .npz or .parquet file")
    parser.add_argument("--out", required=True, help="a new directory")
    parser.add_argument(
        "--n", type=int, default=10_000, help="images to protect, 10000 unless given; 0 for all, with a test split"
    )
    parser.add_argument(
        "--max_change", type=int, default=0, help="largest change of a pixel, of 255; 8 in colour and 16 in grey"
    )
    parser.add_argument("--seed", type=int, help="seed; keep it secret. A fresh one, which is not kept, if not given")
    parser.epilog = "--config.data.KEY=VALUE says how the images are read, such as --config.data.image_size=32."
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    args = make_parser().parse_args(rest)
    out = Path(args.out).expanduser()
    check_new_directory(out, "protected images")
    if args.seed is not None and args.seed < 0:
        raise UserError(f"--seed is {args.seed}; it is at least 0")
    from efsgd_jax.protect.confound_run import Options, confound, protection_of
    from efsgd_jax.protect.output import write_images, write_protection
    from efsgd_jax.protect.sources import Labelled, images_to_protect, read_images

    data = read_images(args.data, data_options(overrides, "protect confound"))
    options = Options(args.max_change, args.seed)
    made = confound(
        images_to_protect(data, args.n, args.seed),
        Labelled(data.test_images, data.test_labels),
        len(data.class_names),
        options,
        say=lambda line: print(line, file=sys.stderr),
    )
    write_protection(out, protection_of(made, data.source, options))
    write_images(out, made.images, made.labels, data.class_names)
    plain, chosen = made.rows[0], made.candidates[0]
    best = max(made.rows[1:], key=lambda row: row.protected)
    text = (
        f"wrote {out}: {len(made.images)} images, changed by at most {made.largest} of 255 (PSNR {made.psnr:.1f} dB); "
        f"used was: {chosen.name}\n"
        f"A CNN that learned from them is right on {plain.protected:.1%} of clean test images; from unprotected "
        f"images, on {plain.unprotected:.1%}. Best for an attacker: {best.attack}, {best.protected:.1%}.\n"
        + ("Hardly anything is lost: these images are NOT hard to learn from.\n" if made.useless else "")
        + "This is not differential privacy, and the images show what they showed. PROTECTION.md says what was "
        "measured, and what breaks it."
    )
    value = {
        "out": args.out, "images": len(made.images), "noise": chosen.name, "psnr": made.psnr, "largest": made.largest,
        "candidates": {candidate.name: candidate.accuracy for candidate in made.candidates},
        "attacks": [row._asdict() for row in made.rows], "guarantee": "none",
    }  # fmt: skip
    show(args, value, text)
