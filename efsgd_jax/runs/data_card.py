"""``README.md`` of a set of synthetic images: a data card with the fields that Hugging Face reads at its beginning."""

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

from efsgd_jax.runs.privacy_markdown import number_of_records
from efsgd_jax.runs.statement import statement

NOT_STATED = "not stated; ask the publisher"
# Uses that the card warns of.
NOT_FOR = (
    "decisions about single people, such as a diagnosis, and approval or test of products for them: details may be "
    "wrong, the label of an image may not be visible in it, and rare variants are missing",
    "statements about small groups: what few real images show is lost in noise",
    "the claim that the real images are anonymous: this is a legal term, and the guarantee above is one argument in it",
)


class Publication(NamedTuple):
    """What the publisher says about the images; "" for what is not stated.

    Attributes:
      title: title of the card.
      licence: licence of the synthetic images, such as "cc-by-4.0".
      origin: whose images the model learned from, and who may be asked.
    """

    title: str = ""
    licence: str = ""
    origin: str = ""


def data_card(
    publication: Publication,
    *,
    counts: Mapping[str, int],
    shape: tuple[int, int, int],
    seed: int,
    method: str,
    generator_sha256: str,
    privacy: dict[str, Any],
) -> str:
    """The card as Markdown.

    Args:
      publication: what the publisher says.
      counts: number of images of each class.
      shape: ``(S, S, C)``.
      seed: seed with which the images were drawn.
      method: name of the synthesis method.
      generator_sha256: SHA-256 of the released generator.
      privacy: the content of ``privacy.json``.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    title = _line(publication.title) or "Synthetic images"
    colour = "grey" if shape[2] == 1 else "RGB"
    software = ", ".join(f"{name} {version}" for name, version in privacy["software"].items())
    public = privacy["public"]
    lines = [
        "---",
        *([f"license: {_yaml(publication.licence)}"] if publication.licence else []),
        f"pretty_name: {_yaml(title)}",
        "task_categories: [image-classification]",
        "tags: [synthetic, differential-privacy]",
        "---",
        f"# {title}",
        "",
        f"{sum(counts.values()):,} synthetic {colour} images of {shape[1]}x{shape[0]} pixels, drawn on {today}. None "
        "of them is a real image.",
        "",
        "| class | images |",
        "|---|---|",
        *(f"| {_cell(name)} | {count:,} |" for name, count in counts.items()),
        "",
        f"- **Licence**: {_line(publication.licence) or NOT_STATED}.",
        f"- **Learned from**: {_line(publication.origin) or NOT_STATED}; {number_of_records(public)}, which "
        "are not part of this set.",
        f"- **Made with**: method `{method}`, {software}; generator SHA-256 `{generator_sha256}`, seed {seed}.",
        "",
        "## Privacy",
        "",
        statement(privacy),
        "",
        "The whole report is `PRIVACY.md`, beside this card.",
        "",
        "## Not for",
        "",
        *(f"- {use};" for use in NOT_FOR[:-1]),
        f"- {NOT_FOR[-1]}.",
        "",
    ]
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _yaml(text: str) -> str:
    return "'" + " ".join(text.split()).replace("'", "''") + "'"
