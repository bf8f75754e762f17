"""``protect_capture``: bends the views of a capture, attacks the result, and writes the statement."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.files import PROTECTION_MARK, check_new_directory
from efsgd_jax.images import save_grid
from efsgd_jax.protect import nerf
from efsgd_jax.protect.captures import LISTS, Capture, frame_of, read_capture, split, to_views, write_capture
from efsgd_jax.protect.flow import Bounds, keep_alike, random_flow, random_of_lengths, rounded, warp
from efsgd_jax.protect.output import STATEMENT, Measured, Protection, write_protection
from efsgd_jax.protect.views import NETWORK, Search, protect
from efsgd_jax.protect.views_attacks import PROTECTED, RANDOM, SAME_LENGTHS, VICTIM, Report, attack, sheet, tables

# The longest shift that can be asked for, in pixels: views that keep 26 dB are bent by less.
LONGEST = 8.0
# Held-out views, bent, and below them as learned from protected views. It lies beside the views that are to be
# published: clean views, and what a NeRF that learned from clean ones shows, would undo a part of the protection.
PICTURE = "held_out.png"
# What else is written there; no picture of a capture may have these names, or lie in directories of these names.
TAKEN = (PICTURE, STATEMENT, PROTECTION_MARK, LISTS[0])
# Keys of random numbers, apart from those of the networks.
OF_RANDOM_FLOW, OF_SAME_LENGTHS = 7, 8
RESISTS = [
    "whoever trains a NeRF on the published views and their cameras and looks at it from other cameras: what it shows "
    "is bent, by as much as the views are"
]
BREAKS = [
    "every view still shows the scene, as like the original as measured below; whoever wants a view needs no NeRF",
    "clean views of the same scene undo a part, which is measured below, as is learning the cameras with the scene",
    "a scene that is bent by so little is recognised as the scene; nothing about it is hidden",
    "larger networks, feed-forward reconstruction, and priors on shapes were not tried",
]
# Said first where the victim learned nothing.
HARD = (
    "a NeRF that learns more than the victim below, which does not learn this scene from clean views either, so that "
    "its numbers say little: it is small, and made for one subject before white"
)


class Settings(NamedTuple):
    """The networks of a run and how it searches; the defaults are those of ``efsgd protect views``."""

    network: nerf.Options = NETWORK
    search: Search = Search()
    victim: nerf.Options = VICTIM


DEFAULT = Settings()


class Protected(NamedTuple):
    """What a run wrote and found.

    Attributes:
      capture: the protected views.
      flow: float32 ``[N, H, W, 2]``, their displacement fields in pixels.
      shifts: mean and longest displacement in pixels, of the protection and of both random flows.
      report: what victims learned from them.
    """

    capture: Capture
    flow: np.ndarray
    shifts: dict[str, tuple[float, float]]
    report: Report


def protect_capture(
    path: str | Path,
    out: str | Path,
    *,
    max_shift: float = 1.0,
    seed: int = 0,
    settings: Settings = DEFAULT,
    say: Callable[[str], None] = lambda _: None,
) -> Protected:
    """Bends the views of a capture so that NeRFs learn another scene, and writes them to the new directory ``out``.

    All views of ``transforms.json`` are written. The attack report is measured on the views of
    ``transforms_test.json``, or else on every eighth view as it was, while victims learn from the others. No clean view
    is written to ``out``, nor a picture that was made from clean views in any other way than by bending them.

    Args:
      path: a directory, see ``read_capture``.
      out: an empty or new directory; it is marked as protected.
      max_shift: the longest displacement in pixels, above 0.
      seed: of all random numbers.
      settings: the networks.
      say: is told of progress.

    Raises:
      UserError: the capture cannot be read, an option is out of range, or ``out`` cannot be written.

    Formal guarantees:
      None. Each written view keeps the bounds on PSNR and SSIM to its original, and therefore shows the scene to
      whoever looks at it. What NeRFs learn was measured for those of the report; others may learn more.
    """
    if not 0 < max_shift <= LONGEST:
        raise UserError(f"the longest shift is {max_shift:g} pixels; it is above 0 and at most {LONGEST:g}")
    if not 0 <= seed < 2**31:
        raise UserError(f"the seed is {seed}; it is from 0 to 2147483647")
    out = Path(out).expanduser()
    check_new_directory(out, "protected views")
    capture, given = read_capture(path)
    _check_names(capture, path)
    index, held_out = split(capture, given)
    frame, bounds = frame_of(capture), Bounds(max_shift)
    clean = to_views(capture, frame)
    flow = protect(clean, settings.network._replace(seed=seed), settings.search, bounds, say=say)
    key = jax.random.key(seed)
    noise = random_flow(flow.shape, max_shift, jax.random.fold_in(key, OF_RANDOM_FLOW))
    flows = {
        RANDOM: keep_alike(clean.colours, noise, bounds),
        SAME_LENGTHS: random_of_lengths(flow, jax.random.fold_in(key, OF_SAME_LENGTHS)),
        PROTECTED: flow,
    }
    colours = {name: rounded(warp(clean.colours, f)) for name, f in flows.items()}

    def seen(colours: jax.Array) -> nerf.Views:
        return nerf.Views(colours[index], clean.poses[index], clean.focal)

    report = attack(
        seen(clean.colours),
        {name: seen(bent) for name, bent in colours.items()},
        to_views(held_out, frame),
        victim=settings.victim,
        seed=seed,
        say=say,
    )
    bent = capture._replace(pictures=np.round(255 * np.asarray(colours[PROTECTED])).astype(np.uint8))
    lengths = {name: np.linalg.norm(np.asarray(f, np.float64), axis=-1) for name, f in flows.items()}
    shifts = {name: (float(length.mean()), float(length.max())) for name, length in lengths.items()}
    # First, so that whoever finds views of a run that ended while it wrote them also finds what they do not protect.
    write_protection(out, statement(report, shifts, bounds, seed, len(index), given is not None))
    write_capture(out, bent)
    # Held-out views that were given apart are not published, and have no bent ones.
    apart = [] if given else [np.delete(bent.pictures, index, axis=0)]
    save_grid(out / PICTURE, sheet([*apart, report.of(PROTECTED).shown]))
    return Protected(bent, np.asarray(flow), shifts, report)


def _check_names(capture: Capture, path: str | Path) -> None:
    """Refuses pictures that this run would overwrite; on some disks names are the same in capital letters."""
    taken = {name.lower() for name in TAKEN}
    for file in capture.files:
        if file.split("/")[0].lower() in taken:
            raise UserError(
                f"{path} has a picture that would be written as {file}, and the protection writes a file of its own "
                f"there ({', '.join(TAKEN)}); give the picture another name"
            )


def statement(
    report: Report,
    shifts: dict[str, tuple[float, float]],
    bounds: Bounds,
    seed: int,
    learned_from: int,
    given: bool,
) -> Protection:
    """``PROTECTION.md`` of a run."""
    where = "the views of transforms_test.json" if given else "every eighth view as it was"
    settings: dict[str, str | float] = {
        "longest displacement in pixels": bounds.max_shift,
        "least PSNR of a view in dB": bounds.min_psnr,
        "least SSIM of a view": bounds.min_ssim,
        "views that victims learned from": learned_from,
        "held-out views": where,
        "seed": seed,
    }
    summary = "Every view was bent by a displacement field, so that a NeRF that learns from all of them is bent."
    breaks = [HARD, *BREAKS] if report.weak else BREAKS
    rows = [(name, *lengths) for name, lengths in shifts.items()]
    moved = Measured("by how many pixels views are bent", ("views", "mean", "longest"), rows)
    return Protection("views", summary, RESISTS, breaks, settings, [*tables(report), moved])
