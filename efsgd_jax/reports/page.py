"""``report``: the page of a run, for its owner or, from ``release/`` alone, for publication."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic, read_json
from efsgd_jax.reports.audit import audit_section
from efsgd_jax.reports.beside import beside_section
from efsgd_jax.reports.classes import balance_section, classes_section
from efsgd_jax.reports.copying import Pair, copying_section
from efsgd_jax.reports.facts import configuration_section, released_scores_section, software_section
from efsgd_jax.reports.material import Released, optional_json, read_metrics, read_release, reading
from efsgd_jax.reports.pictures import drawn_samples, samples_section, walks_section
from efsgd_jax.reports.privacy_card import headline, privacy_card
from efsgd_jax.reports.protections import protections_section
from efsgd_jax.reports.render import render
from efsgd_jax.reports.scores import leading, scores_section
from efsgd_jax.reports.sections import Mismatch, Section
from efsgd_jax.reports.training import training_section
from efsgd_jax.reports.verdict import verdict_section
from efsgd_jax.runs.finished import finished_run
from efsgd_jax.runs.release import public_config
from efsgd_jax.runs.sampling import sample


def report(workdir: str | Path, *, release: bool = False, out: str | Path | None = None) -> Path:
    """Writes the page of a finished run: a single HTML file, which loads nothing from the network.

    Args:
      workdir: the directory of a finished run, with its ``private/``. With ``release``, only ``release/`` is read.
      release: whether the page is to be published. It then shows only the content of ``release/`` and images that its
        generator generates from a public key.
      out: path of the page. None for ``WORKDIR/report.html`` with ``release``, and for
        ``WORKDIR/private/report/report.html`` without.

    Returns:
      The path of the page.

    Raises:
      UserError: the run is not finished, a file of it is damaged, or the page cannot be written.

    Formal guarantees:
      With ``release``, the page is post-processing of ``release/`` and carries the same guarantee. Otherwise none: the
      page shows scores, curves and training images, and is readable to its owner only.

    Examples:
      >>> report("runs/digits").name
      'report.html'
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
    with reading(released.directory.release / "scores.json", "query the scores again"):
        noisy = released_scores_section(released.scores)
    drawn = drawn_samples(released)
    sections = [
        verdict_section(released.privacy, None, drawn.images, drawn.labels, ""),
        privacy_card(released.privacy),
        protections_section(public_config(released.config)),
        noisy,
        samples_section(drawn, released.privacy["guarantee"]),
        walks_section(released),
        configuration_section(public_config(released.config), published=True),
        software_section(released.privacy["software"]),
    ]
    return _page(released, released.data_name, sections, release=True)


def _private_page(released: Released) -> str:
    root = released.directory
    # These come first, so that a damaged file is found before images are generated.
    data, why_not = _data(released)
    scored, audited = _scored(released, data, why_not), _audited(released)
    scores = optional_json(root.scores)
    if _mismatch(scores, released, "scores", ""):
        scores = {}
    drawn = drawn_samples(released)
    with reading(root.scores, released.command("evaluate")):
        verdict = verdict_section(released.privacy, scores, drawn.images, drawn.labels, released.command("evaluate"))
    sections = [
        verdict,
        privacy_card(released.privacy),
        protections_section(read_json(root.run)["config"]),
        beside_section(drawn.images, drawn.labels, released.class_names, data, why_not),
        samples_section(drawn, released.privacy["guarantee"]),
        walks_section(released),
        training_section(read_metrics(root.metrics), released.command("train")),
        *scored,
        audited,
        configuration_section(read_json(root.run)["config"], published=False),
        software_section(released.privacy["software"]),
    ]
    return _page(released, str(root.root), sections, release=False)


def _data(released: Released) -> tuple[Dataset | None, str]:
    """The real data of the run; if it cannot be read, None and the reason."""
    try:
        return finished_run(released.directory.root)[1], ""
    except UserError as error:
        return None, f"Not shown: {error}."


def _scored(released: Released, data: Dataset | None, why_not: str) -> list[Section]:
    """The sections about ``private/scores.json``."""
    path, evaluate, names = released.directory.scores, released.command("evaluate"), released.class_names
    scores = optional_json(path)
    mismatch = _mismatch(scores, released, "scores", evaluate)
    with reading(path, evaluate):
        first = leading(scores)
        pairs, why_no_pairs = _closest_pairs(released, scores, mismatch is not None, data, why_not)
        return [
            scores_section(scores, mismatch, evaluate),
            classes_section(first, names, mismatch, evaluate),
            balance_section(first.get("real2gen", {}), names, mismatch, evaluate),
            copying_section(scores.get("copying", {}), pairs, why_no_pairs, mismatch, evaluate),
        ]


def _audited(released: Released) -> Section:
    """The section about ``private/audit.json``."""
    path, attack = released.directory.audit, released.command("audit")
    audit = optional_json(path)
    with reading(path, attack):
        return audit_section(audit, _mismatch(audit, released, "audit", attack), attack)


def _page(released: Released, name: str, sections: Sequence[Section | None], *, release: bool) -> str:
    """Renders the page as HTML. ``name`` is part of its title."""
    line = headline(released.privacy)
    return render(
        "run.html",
        title=f"{line} · {name}",
        headline=line,
        release=release,
        guarantee=released.privacy["guarantee"],
        commands={"release": released.packing, "report": released.published_page},
        data_name=released.data_name,
        spec=released.spec,
        method=released.config["method"]["name"],
        sections=[section for section in sections if section is not None],
    )


def _mismatch(made: Mapping[str, Any], released: Released, what: str, command: str) -> Mismatch | None:
    """The mismatch to show if ``made``, scores or an audit, is of another generator than the run's; otherwise None."""
    of_this = made.get("generator_sha256", "") in ("", released.directory.generator_sha256)
    return None if of_this else Mismatch(what, command)


def _closest_pairs(
    released: Released, scores: Mapping[str, Any], of_another: bool, data: Dataset | None, why_not: str
) -> tuple[list[Pair], str]:
    """The closest pairs of generated and training images; if they cannot be shown, none and the reason."""
    closest = scores.get("copying", {}).get("closest", [])
    if not closest:
        return [], "None are on record."
    if of_another:
        return [], "Not shown: the scores are of another generator, whose images are gone."
    if data is None:
        return [], why_not
    fake = sample(released.directory.root, scores["num_images"], seed=scores.get("seed", 0))
    return [
        Pair(fake.images[pair["generated"]], data.train_images[pair["train"]], pair["distance"]) for pair in closest
    ], ""
