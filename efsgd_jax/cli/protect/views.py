"""The command line of ``efsgd protect views``: parses arguments, calls ``protect_capture`` and prints what it found."""

import sys
from collections.abc import Sequence
from pathlib import Path

from efsgd_jax.cli.parser import Parser, program, show


def make_parser() -> Parser:
    parser = Parser(
        "protect views",
        description="Bend the posed views of a scene by at most a pixel, so that a NeRF that learns from them shows "
        "the scene worse from other cameras (Shielding the Unseen): no guarantee.",
    )
    parser.add_argument("capture", help="a directory with transforms.json, as in NeRF-synthetic, and its pictures")
    parser.add_argument("--out", required=True, help="a new directory")
    parser.add_argument("--max_shift", type=float, default=1.0, help="longest displacement in pixels, 1 unless given")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers, 0 unless given")
    parser.epilog = "Held-out views are those of transforms_test.json, or every eighth view if there is none."
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    from efsgd_jax.protect.views_attacks import CLEAN, PROTECTED
    from efsgd_jax.protect.views_run import protect_capture

    out = Path(args.out).expanduser()
    done = protect_capture(
        args.capture,
        out,
        max_shift=args.max_shift,
        seed=args.seed,
        say=lambda line: print(line, file=sys.stderr),
    )
    report = done.report
    best = max((o for o in report.outcomes if o.attack.startswith(PROTECTED)), key=lambda o: max(o.psnr, o.aligned))
    least, _, likeness, _ = report.kept[PROTECTED]
    reached = max(best.psnr, best.aligned)
    text = (
        f"wrote {out}: {len(done.capture.files)} views, bent by at most {args.max_shift:g} pixels; "
        f"each keeps {least:.1f} dB and SSIM {likeness:.2f}\n"
        f"A NeRF that learned from them shows held-out views {report.drop:.1f} dB worse, "
        f"{report.more_than_random:.1f} dB worse than after random flow that is as visible. "
        f"Best for an attacker: {best.attack}, {reached:.1f} dB.\n"
        "This is not differential privacy, and every view still shows the scene. PROTECTION.md says what was measured, "
        "and what breaks it."
    )
    if report.weak:
        text += f"\nThese numbers say little: from clean views the NeRF reaches only {report.of(CLEAN).psnr:.1f} dB."
    value = {
        "out": str(out),
        "views": len(done.capture.files),
        "drop": report.drop,
        "more_than_random": report.more_than_random,
        "least_psnr": least,
        "least_ssim": likeness,
        "outcomes": [{"attack": o.attack, "psnr": o.psnr, "aligned": o.aligned} for o in report.outcomes],
        "says_little": report.weak,
        "guarantee": "none",
    }
    show(args, value, text)
