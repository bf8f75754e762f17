"""The runs of a comparison: reads them, groups them by data set, and makes the cells of their table rows."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics.scores import SHORT_NAMES
from efsgd_jax.files import read_json
from efsgd_jax.reports.formats import epsilon_shown, number, percent
from efsgd_jax.reports.material import Released, optional_json, read_release, reading

# Name of the network whose features are compared -> head of the column of its FID, and of its recall.
FIDELITY = {"classifier": "FID, CNN's features", "inception": "FID, InceptionV3"}
RECALL = {"classifier": "Recall, CNN's features", "inception": "Recall, InceptionV3"}
NOT_PRIVATE = "NOT PRIVATE"


class Entry(NamedTuple):
    """A run that can be compared.

    Attributes:
      name: the run's directory, as the user gave it.
      released: the run's release.
      scores: the run's private scores; empty if there are none, or if they are of another generator.
      remark: a remark for the run's row, for instance that it has no scores; "" for none.
      data: identifies the data set; equal for runs on the same images. A run without ``private/`` is identified by the
        name of its data, the image shape and the classes only, and is not equal to one that has ``private/``.
    """

    name: str
    released: Released
    scores: dict[str, Any]
    remark: str
    data: tuple[Any, ...]


def read_entries(runs: Iterable[str | Path]) -> tuple[list[Entry], list[str]]:
    """Reads runs. Returns those that can be read, and a line for each that cannot."""
    entries, problems = [], []
    for run in runs:
        try:
            entries.append(_read(str(run)))
        except UserError as error:
            problems.append(f"{run}: {' '.join(str(error).split())}")
    return entries, problems


def _read(name: str) -> Entry:
    released = read_release(name)
    directory, remark = released.directory, ""
    scores = optional_json(directory.scores)
    if not scores:
        remark = "not scored yet"
    elif scores.get("generator_sha256", released.directory.generator_sha256) != released.directory.generator_sha256:
        scores, remark = {}, "its scores are of another generator"
    with reading(directory.scores, released.command("evaluate")):
        for group in (scores, *scores.get("protocols", {}).values()):
            score_cells(group)  # fails here rather than in a table
    # Different folders may have the same name. If private/ is there, the hash of the images tells them apart.
    images = read_json(directory.run).get("data_sha256", "") if directory.run.is_file() else ""
    spec = released.spec
    return Entry(
        name,
        released,
        scores,
        remark,
        (released.data_name, spec.image_size, spec.channels, released.class_names, images),
    )


def by_data(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Groups runs by data set, in the order in which they were given."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.data, []).append(entry)
    return list(groups.values())


def privacy_cells(entry: Entry) -> dict[str, str]:
    """The cells with which a run's row begins in every table: name and privacy."""
    privacy = entry.released.privacy
    return {
        "Run": entry.name,
        "epsilon": epsilon_shown(entry.released.epsilon),
        "delta": f"{privacy['delta']:g}",
        "guarantee": "proven" if privacy["guarantee"] else NOT_PRIVATE,
    }


def score_cells(group: Mapping[str, Any]) -> dict[str, str]:
    """The cells of one group of scores, with a column for each classifier and for each network of a FID.

    A group has the scores without a protocol, or those of one protocol.
    """
    cells = {}
    for kind in ("gen2real", "real2gen"):
        for classifier, found in group.get(kind, {}).items():
            shown = percent(found["accuracy"])
            if found.get("std"):
                shown += f" ± {100 * found['std']:.1f}"
            cells[f"{kind} {SHORT_NAMES.get(classifier, classifier)}, %"] = shown
    for network, values in group.get("fidelity", {}).items():
        if isinstance(values, dict) and values.get("fid") is not None:
            cells[FIDELITY.get(network, f"FID, {network}")] = number(values["fid"])
        if isinstance(values, dict) and values.get("recall") is not None:
            cells[RECALL.get(network, f"Recall, {network}")] = f"{values['recall']:.2f}"
    if cells and group.get("num_images"):
        networks = [v for v in group.get("fidelity", {}).values() if isinstance(v, dict)]
        compared = {v["num_images"] for v in networks if "fid" in v and "num_images" in v}
        fewer = [f"{n:,.0f}" for n in sorted(compared) if n != group["num_images"]]
        cells["images"] = f"{group['num_images']:,}" + (f" (FID: {', '.join(fewer)})" if fewer else "")
    return cells


def protocols_of(entries: Iterable[Entry]) -> list[str]:
    """Names of all protocols by which at least one of the runs was scored."""
    return list(dict.fromkeys(name for entry in entries for name in entry.scores.get("protocols", {})))


def rows_of(cells: list[dict[str, str]]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table; a cell that a row does not have is a dash."""
    head = list(dict.fromkeys(key for row in cells for key in row))
    # real2gen, which says least about use, is at the end, where a narrow screen scrolls.
    order = {"images": 2, "remark": 3}
    head.sort(key=lambda key: 1 if key.startswith("real2gen") else order.get(key, 0))
    return head, [[row.get(key, "–") for key in head] for row in cells]
