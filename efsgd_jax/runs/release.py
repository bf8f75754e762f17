"""``pack``: checks that a run's ``release/`` holds only what its ledger accounts for, and writes a zip file of it."""

import hashlib
import io
import json
import re
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jsonschema
import numpy as np
from PIL import Image

from efsgd_jax.config import config_from, default_config
from efsgd_jax.data import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.files import PROTECTION_MARK, atomic, read_json
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.images import enlarge
from efsgd_jax.privacy import Composition
from efsgd_jax.privacy.accounting import after_queries
from efsgd_jax.runs.privacy_markdown import to_markdown
from efsgd_jax.runs.privacy_report import public_facts
from efsgd_jax.runs.queries import read_queries
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers import method_named
from efsgd_jax.training.grid import draw_grid

PyTree = Any
# Config keys that are not published: paths on the owner's machine, and train.seed, which reveals the noise.
SECRET_KEYS = (
    ("data", "path"),
    ("data", "labels"),
    ("data", "groups"),
    ("public", "path"),
    ("public", "weights"),
    ("train", "seed"),
)
# Fields of a mechanism that calibration finds, so that the configuration does not determine them.
SOLVED = ("noise_multiplier", "fresh_share")
# Largest difference of a pixel that is accepted, because rounding differs between machines.
PIXEL_TOLERANCE = 2


def public_config(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` without the keys that must not be published."""
    public = json.loads(json.dumps(config))
    for group, key in SECRET_KEYS:
        public.get(group, {}).pop(key, None)  # runs of older versions lack the group public
    return public


def fingerprints(release: Path) -> dict[str, str]:
    """The SHA-256 of each file in a release, by its name."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(release.iterdir())}


def pack(workdir: str | Path, out: str | Path) -> list[str]:
    """Writes a finished run's release to a new zip file, after checking every file in it.

    Args:
      workdir: the directory of a finished run. Its ``private/`` is needed for the checks.
      out: path of the zip file, which must not exist.

    Returns:
      The names of the files in the zip file.

    Raises:
      UserError: ``out`` exists, the run is not finished, has no ``private/`` or carries no guarantee, or something in
        ``release/`` depends, or may depend, on real data in a way that the ledger does not account for. Nothing is
        written then.

    Formal guarantees:
      The zip holds: a generator of the configured shape whose bytes are those that training released; a grid of samples
      that this generator generates again from a public key; a report whose epsilon follows from the mechanism and the
      queries in it; the noisy values of these queries; and configuration. Nothing else, and none of the run's keys.
      That training released a function of the ledger's releases only is the method's guarantee, not this function's.
    """
    directory, target = Workdir(workdir), Path(out).expanduser()
    if target.exists():
        raise UserError(f"{target} exists; name a new file")
    _refuse_protected(directory.root)
    if not directory.finished:
        raise UserError(f"{directory.root} holds no finished run ({directory.generator} is missing); train it first")
    if not (directory.run.is_file() and directory.released.is_file()):
        raise UserError(f"{directory.root} has no private/ part: what its release must not contain cannot be checked")
    check(directory)
    names = sorted(p.name for p in directory.release.iterdir())
    with atomic(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), (directory.release / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return names


def _refuse_protected(path: Path) -> None:
    """Refuses what ``efsgd protect`` wrote, by its name: ``path``, or a directory that it is in."""
    for place in (path.absolute(), *path.absolute().parents):
        if (place / PROTECTION_MARK).is_file():
            kind = read_json(place / PROTECTION_MARK).get("protection")
            raise UserError(
                f"{path} was written by `efsgd protect {kind}`, which is not differential privacy and has no epsilon; "
                f"it is never released here. {place / 'PROTECTION.md'} says what breaks it"
            )


def check(directory: Workdir) -> None:
    """Checks ``release/``; raises ``UserError`` for the first file or content in it that must not be published."""
    expected = {directory.config, directory.privacy_json, directory.privacy_md, directory.generator, directory.samples}
    charged = directory.queries.is_file()
    if charged and read_queries(directory).scores():
        expected.add(directory.released_scores)
    for path in sorted(directory.release.iterdir()):
        if path not in expected or not path.is_file() or path.is_symlink():
            _refuse(path, "does not belong to a release; what training did not put there may derive from real data")
    for path in sorted(expected):
        if not path.is_file():
            _refuse(path, "is missing")
    if charged:
        _check_queries(directory)
    _check_report(directory)
    _check_config(directory)
    _check_keys(directory)
    release = read_json(directory.config)
    shape = release["spec"]
    spec = ImageSpec(shape["image_size"], shape["channels"], len(shape["class_names"]))
    method = method_named(release["config"]["method"]["name"])
    hp = method.read(release["config"]["method"])
    params = _check_generator(directory, method.released_like(spec, hp))
    _check_grid(directory, draw_grid(jax.jit(method.make_generate(spec, hp)), params, spec.num_classes))
    written, found = read_json(directory.released), fingerprints(directory.release)
    for name in sorted(found):
        if found[name] != written.get(name):
            _refuse(directory.release / name, "is not what training wrote")


def _refuse(path: Path, reason: str) -> None:
    raise UserError(f"not released: {path} {reason}")


def _check_report(directory: Workdir) -> None:
    report, path = read_json(directory.privacy_json), directory.privacy_json
    schema = json.loads(resources.files("efsgd_jax.runs").joinpath("privacy.schema.json").read_text(encoding="utf-8"))
    try:
        jsonschema.validate(report, schema)
    except jsonschema.ValidationError as error:
        _refuse(path, f"is not a privacy report: {error.message[:200]}")
    if not report["guarantee"]:
        _refuse(path, f"says that the run carries no guarantee: {report['reason_for_no_guarantee']}")
    if read_json(directory.run)["config"]["train"]["seed"] >= 0:
        _refuse(path, "claims a guarantee, but train.seed was set: anyone can subtract the noise")
    if "queries" in report and not directory.queries.is_file():
        _refuse(path, f"lists queries, but {directory.queries}, which has the charged queries, is missing")
    steps, delta = report["steps"], report["delta"]
    training = _composition(directory, report).epsilon(steps, delta)
    proven = after_queries(training, [q["epsilon"] for q in report.get("queries", [])])
    # The factors allow for differences of rounding between machines.
    if not report["epsilon"] >= proven * (1 - 1e-6):
        _refuse(path, f"claims epsilon {report['epsilon']:.6g}; its mechanism spends {format_epsilon(proven, 6)}")
    if not report.get("training_epsilon", training) >= training * (1 - 1e-6):
        _refuse(
            path,
            f"claims training_epsilon {report['training_epsilon']:.6g}; training spends {format_epsilon(training, 6)}",
        )
    if directory.privacy_md.read_text(encoding="utf-8") != to_markdown(report):
        _refuse(directory.privacy_md, "does not say what privacy.json says")


def _composition(directory: Workdir, report: dict[str, Any]) -> Composition:
    """The composition of the phases in the privacy report.

    Refuses the report unless its phases are the first phases planned by the run's configuration, with the same
    mechanisms and parameters except those found by calibration (``SOLVED``).
    """
    run, path = read_json(directory.run), directory.privacy_json
    config = config_from(run["config"])
    planned = Composition(tuple(method_named(config.method.name).plan(config, run["dataset_size"]))).private
    names = [phase["name"] for phase in report["phases"]]
    if names != [phase.name for phase, _ in planned][: len(names)]:
        _refuse(path, f"lists the phases {', '.join(names)}; the run's configuration has others")
    phases = []
    for (phase, planned_mechanism), found in zip(planned, report["phases"], strict=False):
        mechanism: Any = planned_mechanism
        parameters = found["mechanism_parameters"]
        wanted = json.loads(json.dumps(mechanism._asdict()))
        if set(parameters) != set(wanted):
            _refuse(path, f"describes another mechanism than that of {phase.name}: {sorted(parameters)}")
        for name, value in parameters.items():
            solved = name in SOLVED and isinstance(value, int | float)
            if value != wanted[name] and not solved:
                _refuse(
                    path, f"says that {name} of {phase.name} is {value}; the run's configuration says {wanted[name]}"
                )
        phases.append(phase._replace(mechanism=type(mechanism)(**parameters), steps=found["steps"]))
    if sum(p.steps for p in phases) != report["steps"]:
        _refuse(path, f"counts {report['steps']} steps; its phases have {sum(p.steps for p in phases)}")
    return Composition(tuple(phases))


def _check_queries(directory: Workdir) -> None:
    """Refuses the report and the scores unless they match the charged queries in ``private/queries.json``."""
    queries, remedy = read_queries(directory), "call efsgd_jax.release_score for the same score again to repair it"
    if read_json(directory.privacy_json).get("queries", []) != queries.report().get("queries", []):
        _refuse(directory.privacy_json, f"lists other queries than {directory.queries}; {remedy}")
    for path, text in queries.files(directory).items():
        if path == directory.released_scores and path.read_bytes() != text.encode():
            _refuse(path, f"does not have the scores of the queries in {directory.queries}; {remedy}")


def _check_config(directory: Workdir) -> None:
    release, path = read_json(directory.config), directory.config
    if set(release) != {"config", "spec"} or set(release["spec"]) != {"image_size", "channels", "class_names"}:
        _refuse(path, f"has other parts than config and spec: {sorted(release)}")
    name = release["config"].get("method", {}).get("name")
    known = public_config(default_config(name).to_dict())

    def compare(found: Any, wanted: Any, where: str) -> None:
        if isinstance(found, dict) != isinstance(wanted, dict):
            _refuse(path, f"has {where} of another kind than the configuration")
        for key in found if isinstance(found, dict) else ():
            if key not in wanted:
                _refuse(path, f"has the key {where}{key}, which is not public configuration")
            compare(found[key], wanted[key], f"{where}{key}.")

    compare(release["config"], known, "")
    run = read_json(directory.run)
    if release["config"] != public_config(run["config"]):
        _refuse(path, "is not the configuration that was trained")
    value_range, pre_training = release["config"]["data"]["value_range"], run.get("pre_training", "")
    data = run["config"]["data"]
    most = data["images_per_group"] if data.get("groups") else 0
    region = run["config"]["privacy"].get("region", "")  # runs of older versions lack this key
    public = public_facts(run["dataset_size"], release["spec"], value_range, pre_training, most, region)
    if read_json(directory.privacy_json)["public"] != public:
        _refuse(directory.privacy_json, f"lists other public facts than {path} and the run")


def _check_keys(directory: Workdir) -> None:
    """Refuses every file that contains the run's secret key, as text or as bytes."""
    if not directory.key.is_file():
        return
    # The key's two 32-bit words: as bytes in either byte order, or in text as two decimal numbers.
    words = [int(w) for w in read_json(directory.key)]
    needles = [np.array(words, order).tobytes() for order in ("<u4", ">u4")]
    digits = [re.compile(rb"(?<!\d)" + str(w).encode() + rb"(?!\d)") for w in words]
    for path in sorted(directory.release.iterdir()):
        content = path.read_bytes()
        is_text = path.suffix in (".json", ".md")
        if any(n in content for n in needles) or (is_text and all(d.search(content) for d in digits)):
            _refuse(path, "contains the run's secret key")


def _check_generator(directory: Workdir, wanted: PyTree) -> PyTree:
    """Returns the released parameters.

    Refuses the file unless its pytree has the structure, shapes and dtypes of ``wanted``, and the file contains nothing
    else.
    """
    path = directory.generator
    content = path.read_bytes()
    try:
        params = flax.serialization.msgpack_restore(content)
        described = jax.tree.map(lambda x: (x.shape, str(x.dtype)), params)
    except Exception as error:  # msgpack and Flax raise many kinds of exceptions for a damaged file
        raise UserError(f"not released: {path} cannot be read ({type(error).__name__})") from error
    if described != jax.tree.map(lambda x: (x.shape, str(x.dtype)), flax.serialization.to_state_dict(wanted)):
        _refuse(path, "holds something else than the configured generator's parameters")
    if flax.serialization.to_bytes(params) != content:
        _refuse(path, "holds more than its parameters")
    return params


def _check_grid(directory: Workdir, grid: np.ndarray) -> None:
    path = directory.samples
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            found, extra = np.asarray(image).astype(int), image.info
    except (OSError, ValueError) as error:
        raise UserError(f"not released: {path} is not an image ({error})") from error
    wanted = np.asarray(enlarge(grid)).astype(int)
    if found.shape != wanted.shape or np.max(np.abs(found - wanted)) > PIXEL_TOLERANCE:
        _refuse(path, "shows other images than the released generator generates; they may be real")
    # A PNG file ends with the chunk IEND and its checksum; anything after it is not part of the image.
    if extra or not content.endswith(b"IEND\xaeB`\x82"):
        _refuse(path, "holds more than its pixels")
