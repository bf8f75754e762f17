"""Persons as units: a person with all their images is sampled, clipped and blanked as one record."""

import json
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from malformed import encode
from PIL import Image

from efsgd_jax import default_config, fit, load_dataset, release_score
from efsgd_jax.audit.canaries import audit_run
from efsgd_jax.data import ImageSpec
from efsgd_jax.data.groups import split_by_group, unit_rows
from efsgd_jax.errors import UserError
from efsgd_jax.models.refiner import Refiner
from efsgd_jax.privacy import DpSgdMechanism, OuterSum, SquareSum, VectorSum, clipped_grad
from efsgd_jax.privacy.full_batch import FullBatchMechanism
from efsgd_jax.privacy.gradient_access import GradientAccess
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.privacy.sum_terms import whole_factor
from efsgd_jax.privacy.units import Units, loss_of_unit
from efsgd_jax.runs.release import pack
from efsgd_jax.training.setup import prepare

RNG = np.random.default_rng(0)
PERSONS, MOST = 60, 4
COUNTS = RNG.integers(1, 9, PERSONS)
OF = np.repeat(np.arange(PERSONS), COUNTS)
IMAGES = RNG.integers(0, 256, (len(OF), 8, 8), dtype=np.uint8)
LABELS = np.arange(len(OF)) % 2


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("groups") / "data.npz"
    names = np.array(["a", "b"])
    np.savez(path, x_train=IMAGES, y_train=LABELS, class_names=names, patients=np.char.add("p", OF.astype(str)))
    return path


def config_of(path, method="gaussian_mixture", **privacy):
    config = default_config(method)
    config.data.update(name="npz", path=str(path), groups="patients", images_per_group=MOST)
    config.privacy.update(epsilon=20.0, delta=1e-3, **privacy)
    if method == "gaussian_mixture":
        config.method.update(components=1, directions=5)
    return config


def members(data):
    """The set of persons in the training part, found by their pixels."""
    known = {image.tobytes(): person for image, person in zip(IMAGES, OF, strict=True)}
    return [known[x.tobytes()] for x in data.train_images], [known[x.tobytes()] for x in data.test_images]


def test_a_person_is_on_one_side_with_all_images(npz):
    data = load_dataset("npz", path=npz, groups="patients", test_fraction=0.3)
    train, test = members(data)
    assert not set(train) & set(test)
    assert len(train) + len(test) == len(OF)
    assert data.num_units == len(set(train))
    assert len(set(zip(train, data.train_groups.tolist(), strict=True))) == data.num_units
    # Without one person, all others are where they were.
    gone = train[0] != OF
    with np.load(npz) as file:
        less = {k: v[gone] if len(v) == len(OF) else v for k, v in file.items()}
    np.savez(npz.with_name("less.npz"), **less)
    fewer = load_dataset("npz", path=npz.with_name("less.npz"), groups="patients", test_fraction=0.3)
    assert members(fewer) == ([p for p in train if p != train[0]], test)


def test_the_choice_of_images_depends_on_the_person_only():
    rows, present = unit_rows(OF, IMAGES, MOST)
    assert rows.shape == present.shape == (PERSONS, MOST)
    assert present.sum(axis=1).tolist() == np.minimum(COUNTS, MOST).tolist()
    assert (OF[rows] == np.arange(PERSONS)[:, None]).all()
    for person in (0, 7):
        own = np.flatnonzero(person == OF)
        alone, _ = unit_rows(np.zeros(len(own), int), IMAGES[own], MOST)
        np.testing.assert_array_equal(own[alone[0]], rows[person])
    shuffled = RNG.permutation(len(OF))
    other, _ = unit_rows(OF[shuffled], IMAGES[shuffled], MOST)
    assert (np.sort(IMAGES[shuffled][other], axis=1) == np.sort(IMAGES[rows], axis=1)).all()


def units(count=PERSONS, width=6):
    rows, present = unit_rows(OF, IMAGES, MOST)
    vectors = jnp.asarray(RNG.normal(size=(len(OF), width)) * 10, jnp.float32)
    return Units({"x": vectors[rows], "y": jnp.asarray(LABELS)[rows]}, jnp.asarray(present))


def blanked(records, person):
    """The records without what one person has: zeros in place of vectors add nothing."""
    return records._replace(present=records.present.at[person].set(False))


TERMS = [
    VectorSum(lambda r: r["x"], 2.0, 0.5),
    VectorSum(lambda r: r["x"], 3.0),
    SquareSum(lambda r: r["x"], 2.0, 0.7),
    OuterSum(lambda r: whole_factor(r["x"], 4.0), lambda r: 5 * r["x"][:3], 4.0, 0.6),
]


@pytest.mark.parametrize("term", TERMS, ids=lambda t: type(t).__name__)
def test_a_person_changes_a_sum_by_at_most_what_a_record_may(term):
    records = units()

    def released(records):
        access = SumAccess(FullBatchMechanism(PERSONS, 0.0), records, jax.random.key(0))
        (value,), _ = access.release([term], group=lambda r: r["y"], num_groups=2)
        if isinstance(value, tuple):  # sums and counts, in the scale of the release
            return jnp.concatenate([value[0], value[1][:, None] * term.count_weight], axis=1)
        return value * getattr(term, "weight", 1.0)

    whole, largest = released(records), 0.0
    for person in range(PERSONS):
        largest = max(largest, float(jnp.linalg.norm(whole - released(blanked(records, person)))))
    assert largest <= term.length * (1 + 1e-5)
    assert largest > 0.3 * term.length  # the bound is not wasted: vectors are far longer than the clip norms


def test_the_sums_of_single_images_are_those_without_units():
    x = jnp.asarray(RNG.normal(size=(40, 5)), jnp.float32)
    single = Units({"x": x[:, None], "y": jnp.zeros((40, 1), jnp.int32)}, jnp.ones((40, 1), bool))
    for term in TERMS[:3]:
        sums = [
            SumAccess(FullBatchMechanism(40, 0.7), records, jax.random.key(1)).release([term]).values[0]
            for records in ({"x": x, "y": jnp.zeros(40, jnp.int32)}, single)
        ]
        jax.tree.map(np.testing.assert_array_equal, *sums)


def gradient(records, feedback="none"):
    mechanism = DpSgdMechanism(
        PERSONS, 1.0, PERSONS, 0.0, 1.5, feedback=feedback, feedback_l2_norm_clip=1.0 if feedback == "local" else None
    )
    access = GradientAccess(mechanism, records, jax.random.key(0))
    params = {"w": jnp.zeros(6)}
    loss = lambda p, r, key: (jnp.vdot(p["w"], r["x"]), {"size": jnp.sum(r["x"])})  # noqa: E731
    mean, residual = access.clipped_gradient(loss, params, mechanism.initial_residual(params))
    return mean["w"] * PERSONS, residual


@pytest.mark.parametrize("feedback", ["none", "local"])
def test_a_person_changes_a_gradient_by_at_most_the_clip_norm(feedback):
    records = units()
    whole, residual = gradient(records, feedback)
    changes = []
    for person in range(0, PERSONS, 7):
        # A blank person contributes nothing: the mechanism's mask takes the place of the images.
        less = jax.tree.map(lambda x, person=person: x.at[person].set(jnp.zeros_like(x[person])), records.rows)
        changes.append(float(jnp.linalg.norm(whole - gradient(Units(less, records.present), feedback)[0])))
    assert max(changes) <= 1.5 * (1 + 1e-5)
    assert min(changes) > 1.4
    if feedback == "local":
        assert residual.shape == (PERSONS,)


def test_the_gradient_of_a_person_is_the_mean_over_their_images():
    records = units()
    short = records._replace(rows={**records.rows, "x": records.rows["x"] / 1e4})  # nothing is clipped
    expected = jnp.sum(
        jnp.where(short.present[..., None], short.rows["x"], 0.0) / short.present.sum(axis=1)[:, None, None],
        axis=(0, 1),
    )
    np.testing.assert_allclose(gradient(short)[0], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def run(npz, tmp_path_factory):
    directory = tmp_path_factory.mktemp("persons") / "run"
    fit(config_of(npz), directory, progress=False)
    return directory


def test_the_report_names_the_person(run, tmp_path):
    report = json.loads((run / "release/privacy.json").read_text())
    persons = load_dataset("npz", path=json.loads((run / "private/run.json").read_text())["config"]["data"]["path"],
                           groups="patients").num_units  # fmt: skip
    assert report["unit"] == "one person with all their images"
    assert report["public"]["dataset_size"] == persons == report["phases"][0]["mechanism_parameters"]["dataset_size"]
    assert report["public"]["images_per_person"] == MOST
    assert report["neighbouring_relation"].startswith("zero-out one: one person with all their images is replaced")
    text = (run / "release/PRIVACY.md").read_text()
    assert "was not given to this run" not in text
    assert "The guarantee is for one person with all their images." in text
    assert f"{persons} persons, of each of whom at most {MOST} images are used" in text
    assert "k images of one person" not in text
    assert "groups" not in json.loads((run / "release/config.json").read_text())["config"]["data"]
    pack(run, tmp_path / "release.zip")


def test_a_release_that_mixes_the_units_is_refused(run, tmp_path):
    path = run / "release/privacy.json"
    report = json.loads(path.read_text())
    changed = {**report, "public": {k: v for k, v in report["public"].items() if k != "images_per_person"}}
    path.write_text(json.dumps(changed, indent=2) + "\n")
    try:
        with pytest.raises(UserError, match="not released"):
            pack(run, tmp_path / "release.zip")
    finally:
        path.write_text(json.dumps(report, indent=2) + "\n")


def test_a_run_is_not_continued_with_another_unit(run, npz):
    config = config_of(npz)
    config.data.groups = ""
    with pytest.raises(UserError, match="another configuration"):
        fit(config, run, progress=False)


@pytest.mark.parametrize(
    "method", ["efsgd_mixture", *(pytest.param(m, marks=pytest.mark.slow) for m in ("efsgd_gan", "private_diffusion"))]
)
def test_networks_train_with_persons_as_units(method, npz, tmp_path):
    config = config_of(npz, method)
    config.train.update(steps=2, expected_batch_size=16)
    config.method.update(microbatch_size=8)
    report = fit(config, tmp_path / "run", progress=False).privacy
    assert report["unit"] == "one person with all their images"
    assert report["epsilon"] <= 20.0


def test_a_method_without_units_refuses_groups(npz):
    config = config_of(npz, "sanitized_gan")
    with pytest.raises(UserError, match="no guarantee for groups"):
        prepare(config)


def test_what_counts_single_images_refuses_persons(run, npz):
    with pytest.raises(UserError, match="canaries are single images"):
        audit_run(config_of(npz, "efsgd_gan"), canaries=20)
    with pytest.raises(UserError, match="for one person with all their images, and a score is a count of images"):
        release_score(run, "gen2real.cnn", 0.5)


def folder(root, groups=True):
    for i, person in enumerate(OF):
        label = "ab"[LABELS[i]]
        place = root / label / (f"p{person}" if groups else "")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(encode(Image.fromarray(IMAGES[i])))
    return root


def same_groups(data):
    """Whether the groups of a data set are the persons."""
    persons = members(data)[0]
    return len(set(zip(persons, data.train_groups.tolist(), strict=True))) == len(set(persons)) == data.num_units


def test_every_source_reads_groups(npz, tmp_path):
    grouped = folder(tmp_path / "folders")
    assert same_groups(load_dataset("folder", path=grouped, channels=1, groups="folder"))
    plain = folder(tmp_path / "plain", groups=False)
    lines = [f"{'ab'[LABELS[i]]}/{i}.png,p{person}" for i, person in enumerate(OF)]
    (tmp_path / "patients.csv").write_text("\n".join(["file,patient", *lines]) + "\n")
    (plain / "patients.csv").write_text((tmp_path / "patients.csv").read_text())
    for groups in ("patients.csv", str(tmp_path / "patients.csv")):
        assert same_groups(load_dataset("folder", path=plain, channels=1, groups=groups))
    pngs = [encode(Image.fromarray(x)) for x in IMAGES]
    pq.write_table(pa.table({"image": pngs, "label": LABELS, "who": OF}), tmp_path / "a.parquet")
    data = load_dataset("parquet", path=tmp_path / "a.parquet", channels=1, classes="2", groups="who")
    assert same_groups(data)
    assert "of" in repr(data)


def celeba(root, identities=True):
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, len(OF) + 1)]
    for name, image in zip(names, IMAGES, strict=True):
        (root / "img_align_celeba" / name).write_bytes(encode(Image.fromarray(image)))
    lines = [f"{name} {2 * label - 1}" for name, label in zip(names, LABELS, strict=True)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), "Male", *lines]) + "\n")
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {2 * (i % 3 == 0)}\n" for i, n in enumerate(names)))
    if identities:
        text = "".join(f"{name} {person}\n" for name, person in zip(names, OF, strict=True))
        (root / "identity_CelebA.txt").write_text(text)
    return root


def test_celeba_has_identities_and_says_so(tmp_path):
    root = celeba(tmp_path / "celeba")
    with pytest.warns(UserWarning, match=r"identity_CelebA.txt in .* says which person"):
        load_dataset("celeba", path=root, image_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_dataset("celeba", path=root, image_size=8, channels=1, groups="identity_CelebA.txt")
    assert same_groups(data)


def test_a_list_with_a_column_of_persons_is_pointed_out(tmp_path):
    plain = folder(tmp_path / "plain", groups=False)
    lines = [f"{'ab'[LABELS[i]]}/{i}.png,{'ab'[LABELS[i]]},p{person}" for i, person in enumerate(OF)]
    (plain / "list.csv").write_text("\n".join(["file,label,patient_id", *lines]) + "\n")
    with pytest.warns(UserWarning, match=r"the column patient_id of .*list.csv says which person"):
        load_dataset("folder", path=plain, channels=1, labels="list.csv", classes="a,b")


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("npz", {"groups": "persons"}, "no array persons"),
        ("npz", {"groups": "x_train"}, "one whole number or text"),
        ("npz", {"groups": "class_names"}, "images but 2 groups"),
        ("digits", {"groups": "a"}, "'digits' has no groups"),
    ],
)
def test_wrong_groups_are_refused(source, options, words, npz):
    with pytest.raises(UserError, match=words):
        load_dataset(source, path=npz if source == "npz" else None, **options)


def test_folders_without_a_level_for_persons_are_refused(tmp_path):
    with pytest.raises(UserError, match="<class>/<group>/<image>"):
        load_dataset("folder", path=folder(tmp_path, groups=False), channels=1, groups="folder")


def test_an_empty_group_is_refused():
    with pytest.raises(UserError, match="at index 1 has no group"):
        split_by_group(np.array(["a", ""]), 0.5, "here")


@pytest.mark.parametrize("network", ["refiner", "layers"])
def test_ghost_norms_of_a_person_are_those_of_their_whole_gradient(network):
    """The gradient of a network, of several images of each person, found without forming each one and by forming it."""
    rows, present = unit_rows(OF, IMAGES, MOST)
    images = jnp.asarray(IMAGES[rows][..., None] / 255.0, jnp.float32)[:12]
    records = Units({"image": images, "label": jnp.asarray(LABELS[rows])[:12]}, jnp.asarray(present)[:12])
    if network == "refiner":
        model = Refiner(ImageSpec(8, 1, 2), width=4, blocks=1)
        codes = jnp.ones((1, 3))
        params = model.init(jax.random.key(0), images[0, :1], codes, jnp.zeros(1, jnp.int32))
        # The last layer begins at zero, where most gradients vanish.
        params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), params)

        def loss(p, r, key):
            out = model.apply(p, r["image"][None], codes * jnp.mean(r["image"]), r["label"][None])
            return jnp.sum(jnp.square(out)), {}
    else:
        model = nn.Sequential([nn.Conv(3, (3, 3)), nn.GroupNorm(1), nn.relu, lambda x: x.reshape(-1), nn.Dense(2)])
        params = model.init(jax.random.key(0), images[0, 0])

        def loss(p, r, key):
            logits = model.apply(p, r["image"])
            return -jax.nn.log_softmax(logits)[r["label"]], {}

    keys = jax.random.split(jax.random.key(2), 12)
    by = {
        method: clipped_grad(loss_of_unit(loss), 0.5, method=method)(params, records, keys)
        for method in ("vmap", "ghost", "auto")
    }
    for method in ("ghost", "auto"):
        np.testing.assert_allclose(by[method].l2_norms, by["vmap"].l2_norms, rtol=1e-4)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            by[method].clipped_sum,
            by["vmap"].clipped_sum,
        )
    # Each is the mean of the gradients of the person's images.
    of_one = jax.grad(lambda p, r: loss(p, r, keys[0])[0])
    first = [of_one(params, jax.tree.map(lambda x, j=j: x[0, j], records.rows)) for j in range(MOST)]
    mean = jax.tree.map(lambda *x: sum(g * p for g, p in zip(x, present[0], strict=True)) / present[0].sum(), *first)
    norm = np.sqrt(sum(float(jnp.sum(jnp.square(x))) for x in jax.tree.leaves(mean)))
    np.testing.assert_allclose(by["vmap"].l2_norms[0], norm, rtol=1e-4)
