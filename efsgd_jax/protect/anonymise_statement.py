"""What ``PROTECTION.md`` says of anonymised images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from efsgd_jax.protect.output import Measured, Protection

if TYPE_CHECKING:
    from efsgd_jax.protect.anonymise_run import Outcome

SUMMARY = (
    "Each image was replaced by one of its class that a generator makes, searched for so that a recogniser does not "
    "see the original in it."
)
NO_KEY = "No key was kept: nothing that was written restores an original."
KEY = "A key was kept, in a private file, which restores the originals."
RESISTS = ["the recogniser that was attacked; others as far as the first table says"]
BREAKS = [
    "only the recogniser that was attacked is fooled for certain: another or a later one may see more",
    "whoever has the originals and the tool learns from pairs of their own making, and compares, as measured below",
    "whoever knows the seed repeats the search on every original, and finds each one",
    "the class is kept on purpose, and the labels are the originals' own",
    "nothing bounds what an image says of its original; the attacks below are those that were tried",
]
KEY_BREAKS = "whoever gets the key file restores the originals: losing it is disclosure"
KINDS = ("another copy of the original", "a fresh image of the class", "anonymised")


def statement(outcome: "Outcome", settings: Mapping[str, str | float], restored: float | None) -> Protection:
    """The statement for what was made.

    Args:
      outcome: what was made, and what attacks find.
      settings: the options that were used.
      restored: the share of restored images that an unseen recogniser recognises; None if no key was kept.
    """
    count = len(outcome.originals.labels)
    recognised = Measured(
        f"share of images whose nearest among {count} originals is their own; a guess finds {1 / count:.3g}",
        ("attack", *KINDS, "anonymised, among the originals of the class"),
        [(name, *shares) for name, shares in outcome.recognised.items()],
    )
    aims = Measured(
        "what the search aims at, and what it keeps",
        ("measured", *KINDS),
        [
            ("mean cosine with the original, for the recogniser that was attacked", *outcome.cosines),
            ("mean correlation of pixels with the original", *outcome.correlations),
            ("share of images of their class, for an independent classifier", *outcome.class_kept),
        ],
    )
    key = Measured("the key", ("attack", "recognised"), [("restored images, unseen recogniser", restored or 0.0)])
    return Protection(
        "anonymise",
        f"{SUMMARY} {NO_KEY if restored is None else KEY}",
        RESISTS,
        BREAKS if restored is None else [KEY_BREAKS, *BREAKS],
        {**settings, "key": "none" if restored is None else "in a private file"},
        [recognised, aims] if restored is None else [recognised, aims, key],
    )
