"""``report``: one run as one page, for its owner, or for everybody from ``release/`` alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic, read_json
from efsgd_jax.reports.confusion import balance_section, confusion_matrix
from efsgd_jax.reports.copying import Pair, audit_section, copying_section
from efsgd_jax.reports.facts import configuration_section, released_scores_section, software_section
from efsgd_jax.reports.html import Markup, document, join, paragraph, tag
from efsgd_jax.reports.material import Released, optional_json, read_metrics, read_release, reading
from efsgd_jax.reports.pictures import samples_section, walks_section
from efsgd_jax.reports.privacy_card import headline, privacy_card
from efsgd_jax.reports.scores import classes_section, scores_section
from efsgd_jax.reports.training import training_section
from efsgd_jax.runs.finished import finished_run
from efsgd_jax.runs.release import public_config
from efsgd_jax.runs.sampling import sample

PRIVATE = (
    "This page is private: curves, scores and real images on it are not covered by epsilon. "
    "For a page to publish, use --release."
)
PUBLIC = "Made of the release alone: no real image was read, and the pictures are drawn from the released generator."
UNCOVERED = "Made of the release alone, which carries no guarantee: do not publish it as private."


def report(workdir: str | Path, *, release: bool = False, out: str | Path | None = None) -> Path:
    """Writes the page of a finished run: one HTML file that needs no network.

    Args:
      workdir: a finished run, with its ``private/``; with ``release`` only ``release/`` is read.
      release: a page to publish, of what is in ``release/`` and what its generator draws from a public key.
      out: the file; None for ``WORKDIR/private/report/report.html``, with ``release`` for ``WORKDIR/report.html``.

    Returns:
      Where the page is.

    Raises:
      UserError: the run is not finished, a file of it is damaged, the page cannot be written.

    Formal guarantees:
      With ``release``, what ``release/`` carries: the page is post-processing of it. Otherwise none: the page shows
      scores, curves and training images, and is readable to its owner only.
    """
    released = read_release(workdir)
    root = released.directory
    if not release and not root.run.is_file():
        raise UserError(f"{root.root} has no private/ part; --release makes the page of release/ alone")
    where = root.root / "report.html" if release else root.private / "report" / "report.html"
    target = where if out is None else Path(out).expanduser()
    if target.is_dir():
        raise UserError(f"{target} is a directory; name a file, such as {target / 'report.html'}")
    page = _release_page(released) if release else _private_page(released)
    if not release and out is None:
        target.parent.mkdir(mode=0o700, exist_ok=True)
    with atomic(target, private=not release) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _release_page(released: Released) -> str:
    sections = {"Privacy": privacy_card(released.privacy)}
    with reading(released.directory.release / "scores.json", "query the scores again"):
        noisy = released_scores_section(released.scores)
    if noisy is not None:
        sections["Scores"] = noisy
    sections |= {
        "Samples": samples_section(released),
        **walks_section(released),
        "Configuration": configuration_section(public_config(released.config), "As published with the generator."),
        "Software": software_section(released.privacy["software"]),
    }
    note = PUBLIC if released.privacy["guarantee"] else UNCOVERED
    return _document(released, released.data_name, note, sections)


def _private_page(released: Released) -> str:
    root = released.directory
    # First: a damaged file is found before anything is drawn.
    scored, audited = _scored(released), _audited(released)
    sections = {
        "Privacy": privacy_card(released.privacy),
        "Samples": samples_section(released),
        **walks_section(released),
        "Training": training_section(read_metrics(root.metrics), released.command("train")),
        **scored,
        "Audit": audited,
        "Configuration": configuration_section(read_json(root.run)["config"], "As trained."),
        "Software": software_section(released.privacy["software"]),
    }
    return _document(released, str(root.root), PRIVATE, sections)


def _scored(released: Released) -> dict[str, Markup]:
    """What ``private/scores.json`` says."""
    path, evaluate, names = released.directory.scores, released.command("evaluate"), released.class_names
    scores = optional_json(path)
    of_another = _of_another(scores, released, "scores", evaluate)
    with reading(path, evaluate):
        pairs, why_no_pairs = _closest_pairs(released, scores, of_another is not None)
        matrix = confusion_matrix(scores.get("gen2real", {}), names)
        return {
            "Scores": scores_section(scores, of_another, evaluate),
            "By class": classes_section(scores, matrix, of_another, evaluate),
            "Balance": balance_section(scores.get("real2gen", {}), names, of_another, evaluate),
            "Copying": copying_section(scores.get("copying", {}), pairs, why_no_pairs, of_another, evaluate),
        }


def _audited(released: Released) -> Markup:
    """What ``private/audit.json`` says."""
    path, attack = released.directory.audit, released.command("audit")
    audit = optional_json(path)
    with reading(path, attack):
        return audit_section(audit, _of_another(audit, released, "audit", attack), attack)


def _document(released: Released, name: str, note: str, sections: dict[str, Markup]) -> str:
    spec = released.spec
    kind = "gray" if spec.channels == 1 else "colour"
    lead = f"{released.data_name}: {spec.num_classes} classes of {spec.image_size}×{spec.image_size} {kind} images, "
    lead += f"by {released.config['method']['name']}"
    line = headline(released.privacy)
    header = join(
        tag("h1", line), paragraph(lead, class_="lead"),
        paragraph(note, class_="notice" if released.privacy["guarantee"] else "notice bad"),
    )  # fmt: skip
    return document(f"{line} · {name}", header, sections, paragraph("Made by efsgd_jax. ", note))


def _of_another(made: Mapping[str, Any], released: Released, what: str, command: str) -> Markup | None:
    """A notice if ``made`` is not of this run's generator."""
    if made.get("generator_sha256", "") in ("", released.directory.generator_sha256):
        return None
    said = f"The {what} are of another generator than this run's. "
    return paragraph(tag("strong", said), "Make them again: ", tag("code", command), class_="notice bad")


def _closest_pairs(released: Released, scores: Mapping[str, Any], of_another: bool) -> tuple[list[Pair], str]:
    """The pairs as pictures, or why there are none."""
    closest = scores.get("copying", {}).get("closest", [])
    if not closest:
        return [], "None are on record."
    if of_another:
        return [], "Not shown: the scores are of another generator, whose images are gone."
    try:
        data: Dataset = finished_run(released.directory.root)[1]
    except UserError as error:
        return [], f"Not shown: {error}."
    fake = sample(released.directory.root, scores["num_images"], seed=scores.get("seed", 0))
    return [
        Pair(fake.images[pair["generated"]], data.train_images[pair["train"]], pair["distance"]) for pair in closest
    ], ""
