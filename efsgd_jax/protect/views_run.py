"""``protect_capture``: bends the views of a capture, attacks the result, and writes the statement."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.files import check_new_directory
from efsgd_jax.images import save_grid
from efsgd_jax.protect import nerf
from efsgd_jax.protect.captures import Capture, frame_of, read_capture, split, to_views, write_capture
from efsgd_jax.protect.flow import Bounds, keep_alike, random_flow, rounded, warp
from efsgd_jax.protect.output import Protection, mark_directory, write_protection
from efsgd_jax.protect.views import NETWORK, Search, protect
from efsgd_jax.protect.views_attacks import VICTIM, Report, attack, sheet, tables

# The longest shift that can be asked for, in pixels: views that keep 26 dB are bent by less.
LONGEST = 8.0
# Rows of held-out views: as they are, and as learned from clean, randomly bent and protected views.
PICTURE = "held_out.png"
# Keys of random numbers, apart from those of the networks.
OF_RANDOM_FLOW = 7
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
      report: what victims learned from them.
    """

    capture: Capture
    flow: np.ndarray
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
    ``transforms_test.json``, or else on every eighth view as it was, while victims learn from the others.

    Args:
      path: a directory, see ``read_capture``.
      out: an empty or new directory; it is marked as protected.
      max_shift: the longest displacement in pixels, above 0.
      seed: of all random numbers.
      settings: the networks.
      say: is told of progress.

    Raises:
      UserError: the capture cannot be read, an option is out of range, or ``out`` cannot be written.
    """
    if not 0 < max_shift <= LONGEST:
        raise UserError(f"the longest shift is {max_shift:g} pixels; it is above 0 and at most {LONGEST:g}")
    if not 0 <= seed < 2**31:
        raise UserError(f"the seed is {seed}; it is from 0 to 2147483647")
    check_new_directory(Path(out), "protected views")
    capture, given = read_capture(path)
    index, held_out = split(capture, given)
    frame, bounds = frame_of(capture), Bounds(max_shift)
    clean = to_views(capture, frame)
    flow = protect(clean, settings.network._replace(seed=seed), settings.search, bounds, say=say)
    noise = random_flow(flow.shape, max_shift, jax.random.fold_in(jax.random.key(seed), OF_RANDOM_FLOW))
    flows = {"protected": flow, "random": keep_alike(clean.colours, noise, bounds)}
    colours = {name: rounded(warp(clean.colours, f)) for name, f in flows.items()}

    def seen(colours: jax.Array) -> nerf.Views:
        return nerf.Views(colours[index], clean.poses[index], clean.focal)

    report = attack(
        seen(clean.colours),
        seen(colours["random"]),
        seen(colours["protected"]),
        to_views(held_out, frame),
        victim=settings.victim,
        seed=seed,
        say=say,
    )
    bent = capture._replace(pictures=np.round(255 * np.asarray(colours["protected"])).astype(np.uint8))
    mark_directory(out, "views")
    write_capture(out, bent)
    save_grid(Path(out) / PICTURE, sheet([held_out.pictures, *(o.shown for o in report.outcomes[:3])]))
    write_protection(out, statement(report, bounds, seed, len(index), given is not None))
    return Protected(bent, np.asarray(flow), report)


def statement(report: Report, bounds: Bounds, seed: int, learned_from: int, given: bool) -> Protection:
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
    return Protection("views", summary, RESISTS, breaks, settings, tables(report))
