"""The command line of ``efsgd protect anonymise``: parses arguments, anonymises images and says what attacks find."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from efsgd_jax.cli.data_options import data_options
from efsgd_jax.cli.parser import Parser, program, show, split_overrides
from efsgd_jax.errors import UserError
from efsgd_jax.files import check_new_directory

EXAMPLES = """Keys of config.data say how the images are read, such as --config.data.name=mnist.

examples:
  efsgd train --config=preset:mixture_mnist --workdir=run
  efsgd protect anonymise mnist.npz --config.data.name=mnist --generator=run --out=anonymised"""


def make_parser() -> Parser:
    parser = Parser(
        "protect anonymise",
        description="Replace each image by one of its class in which a recogniser does not see the original: a search "
        "in the latent of a generator (Diff-Privacy). No guarantee.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", help="a directory, .zip, .npz or .parquet file of labelled images")
    parser.add_argument("--generator", required=True, help="the directory of a finished run on images of these classes")
    parser.add_argument("--out", required=True, help="a new directory")
    parser.add_argument(
        "--n",
        type=int,
        default=500,
        help="how many images, chosen at random; 0 for all, with a test split; 500 if not given",
    )
    parser.add_argument(
        "--embed", help="your recogniser, as module:function; one is trained on the images if not given"
    )
    parser.add_argument(
        "--keep",
        type=float,
        help="share of the original's code that noise leaves, from 0 (nothing but the class) to 1; 0.2 if not given",
    )
    parser.add_argument("--key", help="a new private file that restores the originals; none is kept if not given")
    parser.add_argument("--seed", type=int, help="seed; keep it secret. A fresh one, which is not kept, if not given")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    args = make_parser().parse_args(rest)
    options = data_options(overrides, "protect anonymise")
    out = Path(args.out).expanduser()
    check_new_directory(out, "anonymised images")
    if args.seed is not None and args.seed < 0:
        raise UserError(f"--seed is {args.seed}; it is at least 0")
    if args.keep is not None and not 0 <= args.keep <= 1:
        raise UserError(f"--keep is {args.keep:g}; it is from 0 (nothing but the class) to 1 (no noise)")
    # Imported here, so that mistakes in the flags are found at once.
    from efsgd_jax.protect.anonymise import Search
    from efsgd_jax.protect.anonymise_attacks import BY_UNSEEN
    from efsgd_jax.protect.anonymise_run import anonymise_images, latent_for
    from efsgd_jax.protect.embedder import embedder_named
    from efsgd_jax.protect.latent import latent_of
    from efsgd_jax.protect.restoring_key import check_key_file
    from efsgd_jax.protect.sources import read_images

    if args.key:
        check_key_file(args.key, out)
    latent = latent_of(args.generator)
    data = read_images(args.images, options)
    latent = latent_for(data, latent, args.generator)
    embed = embedder_named(args.embed, latent.spec.shape) if args.embed else None
    found = anonymise_images(
        data,
        latent,
        out,
        n=args.n,
        embed=embed,
        embed_name=args.embed or "built in",
        seed=args.seed,
        key_file=args.key,
        search=Search() if args.keep is None else Search(keep=args.keep),
    )
    unseen = found.recognised[BY_UNSEEN]
    strongest = max(found.recognised, key=lambda name: found.recognised[name][3])
    text = (
        f"wrote {out}: {len(found.images)} anonymised images, {found.class_kept.anonymised:.1%} still of their class\n"
        f"Mean cosine with the original, for the attacked recogniser: {found.cosines.anonymised:.2f} (other copies: "
        f"{found.cosines.copies:.2f}). An unseen one recognises {unseen[2]:.1%} of the images (other copies: "
        f"{unseen[0]:.1%}).\n"
        f"Best attack, by {strongest} when the class is known: {found.recognised[strongest][3]:.1%}.\n"
        "This is not differential privacy: PROTECTION.md says what was measured, and what breaks it."
    )
    if args.key:
        text += f"\n{args.key} restores the originals; keep it private: losing it is disclosure"
    value = {
        "out": str(out),
        "images": len(found.images),
        "guarantee": "none",
        "cosine": found.cosines._asdict(),
        "correlation": found.correlations._asdict(),
        "class_kept": found.class_kept._asdict(),
        "recognised": {
            name: dict(zip(("copies", "fresh", "anonymised", "in_class"), x, strict=True))
            for name, x in found.recognised.items()
        },
    }
    show(args, value, text)
