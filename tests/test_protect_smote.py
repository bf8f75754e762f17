"""``efsgd protect smote``: rows that are replaced, and the attacks on them."""

import json
import math

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.protect.rows import read_rows
from efsgd_jax.protect.smote import LEAST_MOVE, Moved, in_random_order, near_rows, reflected, smote
from efsgd_jax.protect.smote_attacks import at_risk, attack_report, linked, linked_by_likelihood, linked_within
from efsgd_jax.protect.smote_likelihood import SAME, cell_density, log_density

DECLARED = {"age": {"range": [0, 120]}, "weight": {"range": [0, 300]}, "finding": ["benign", "malignant"]}


def patients(n=60, seed=0):
    rng = np.random.default_rng(seed)
    ill = rng.integers(2, size=n)
    return {
        "age": [str(x) for x in np.clip(rng.normal(40 + 20 * ill, 10).round(), 0, 120)],
        "weight": [str(x) for x in np.clip(rng.normal(75, 15, n).round(1), 0, 300)],
        "finding": [("benign", "malignant")[i] for i in ill],
        "name": [f"person {i}" for i in range(n)],
    }


def write_csv(path, columns):
    lines = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")


def digits():
    found = load_digits()
    return found.data / 16, found.target


def in_order(moved, labels):
    return Moved(moved, labels, np.arange(len(moved)))


def likely(cells, labels, moved, scale, neighbours=5, tried=150):
    near = near_rows(cells, labels, neighbours)
    return linked_by_likelihood(cells, labels, moved, near, log_density(cells, scale), tried)


def test_every_cell_of_every_row_is_replaced_and_stays_in_its_range():
    cells, labels = digits()
    # Values that a least move reflects onto themselves.
    cells[0], cells[1] = 1 - LEAST_MOVE / 2, LEAST_MOVE / 2
    for scale in (1e-6, 1.0, 100.0):
        moved = smote(cells, labels, noise_scale=scale)
        assert np.abs(moved - cells).min() > LEAST_MOVE / 2 - 1e-9
        assert moved.min() >= 0.0
        assert moved.max() <= 1.0


def test_a_stronger_noise_is_recognised_less_and_the_method_itself_recognises_more_than_distance():
    cells, labels = digits()
    moved = {scale: in_random_order(smote(cells, labels, noise_scale=scale), labels, 5) for scale in (0.3, 1.0, 3.0)}
    found = [linked(cells, moved[scale]) for scale in (0.3, 1.0, 3.0)]
    assert found[0] > 0.9 > found[1] > 0.3 > found[2]
    assert linked_within(cells, labels, moved[3.0]) > found[2]
    assert likely(cells, labels, moved[1.0], 1.0) > found[1] + 0.2
    assert likely(cells, labels, moved[3.0], 3.0) > found[2] + 0.2


@pytest.mark.parametrize("x", [0.0, 3e-4, 0.3, 1 - LEAST_MOVE / 2, 1.0])
@pytest.mark.parametrize("scale", [1e-4, 0.02, 0.7, 20.0])
def test_the_likelihood_of_a_cell_is_how_often_it_occurs(x, scale):
    grid = np.linspace(0, 1, 200_001)
    width = grid[1]
    density = cell_density(grid[:, None], np.array([x]), np.array([scale]))[:, 0]
    (points,) = np.nonzero(density > 8e3)  # probabilities over twice the width of what counts as equal
    spread = np.delete(density, points).sum() * width
    on_points = sum(density[points]) * 2 * SAME
    assert spread + on_points == pytest.approx(1.0, abs=0.01)

    # Both rows are equal: the noise follows the least spread, 0.01.
    moved = smote(np.full((2, 40_000), x), np.zeros(2, int), noise_scale=scale / 0.01, neighbours=1)
    for low, high in ((0.0, 0.25), (0.25, 0.5), (0.5, 1.0)):
        inside = (grid >= low) & (grid < high)
        inside[points] = False
        expected = density[inside].sum() * width
        expected += sum(density[i] for i in points if low <= grid[i] < high) * 2 * SAME
        assert np.mean((moved >= low) & (moved < high)) == pytest.approx(expected, abs=0.015)


def test_the_likelihood_of_all_neighbours_counts_and_not_that_of_the_most_likely_one():
    cells, labels = np.array([[0.0], [0.5], [1.0]]), np.zeros(3, int)

    def likelihood(y, x, other):
        chance = np.where(x == 0.5, 0.5, np.where((x == 0.0) & (other == 0.5), 0.6, 0.01))[:, 0]
        return np.broadcast_to(np.log(chance), (len(y), 3))

    moved = Moved(cells, labels, np.ones(3, int))
    assert linked_by_likelihood(cells, labels, moved, near_rows(cells, labels, 2), likelihood) == 1.0


def test_the_likelihood_finds_rows_at_the_ends_that_are_reflected():
    rng = np.random.default_rng(0)
    cells, labels = rng.choice([0.0, 0.1, 0.9, 1.0], size=(200, 12)), np.zeros(200, int)
    moved = in_random_order(smote(cells, labels, noise_scale=1.0, seed=1), labels, 2)
    assert likely(cells, labels, moved, 1.0) > linked(cells, moved) + 0.1


def test_rows_are_tried_at_random_and_not_the_first_ones():
    """A sorted table, of which only the first label is recognised."""
    labels = np.repeat([0, 1], 100)
    cells = np.random.default_rng(0).random((200, 6))
    seen = np.where((labels == 0)[:, None], cells, np.random.default_rng(1).random((200, 6)))
    near = near_rows(cells, labels, 1)
    found = linked_by_likelihood(
        cells, labels, in_order(seen, labels), near, lambda y, x, other: -np.abs(y - x).sum(axis=-1), tried=60
    )
    assert 0.3 < found < 0.7


def test_rows_are_written_in_an_order_that_says_nothing():
    cells, labels = digits()
    cells, labels = cells[:400][np.argsort(labels[:400])], np.sort(labels[:400])
    moved = in_random_order(smote(cells, labels, seed=3), labels, 3)
    assert sorted(moved.origin) == list(range(len(cells)))
    np.testing.assert_array_equal(moved.labels, labels[moved.origin])
    assert np.abs(np.corrcoef(moved.origin, np.arange(len(cells)))[0, 1]) < 0.15
    report = attack_report(cells, labels, moved, noise_scale=1.0, neighbours=5, fewest=3)
    found = {row[0]: row[1] for row in report[0].rows}
    for name, chance in (
        ("row at the same place", "chance"),
        ("row at the same place of the same label", "chance, the label known"),
    ):
        assert found[name] <= 5 * found[chance], name
    kept = attack_report(cells, labels, in_order(moved.cells, labels), noise_scale=1.0, neighbours=5, fewest=3)
    assert dict(kept[0].rows)["row at the same place"] == 1.0


def test_logistic_regression_still_learns_from_replaced_digits():
    cells, labels = digits()
    moved = smote(cells[:1400], labels[:1400])
    assert LogisticRegression(max_iter=1000).fit(moved, labels[:1400]).score(cells[1400:], labels[1400:]) >= 0.85


def test_near_rows_are_of_the_same_label_and_never_the_row_itself_and_a_small_label_lowers_only_its_own():
    cells = np.array([[0.1], [0.1], [0.1], [0.2], [0.9], [0.8]])
    labels = np.array([0, 0, 0, 0, 1, 1])
    near = near_rows(cells, labels, 3)
    assert near.counts.tolist() == [3, 3, 3, 3, 1, 1]
    assert [sorted(row[:k]) for row, k in zip(near.rows.tolist(), near.counts, strict=True)] == [
        [1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [5], [4],
    ]  # fmt: skip


def test_reflection_brings_any_value_into_range():
    x = np.linspace(-5, 5, 101)
    assert ((reflected(x) >= 0) & (reflected(x) <= 1)).all()
    np.testing.assert_allclose(reflected(np.array([0.3, -0.3, 2.3])), 0.3)


def test_rows_at_risk_are_those_of_rare_values():
    assert at_risk(np.array([[0.0, 1.0]] * 3 + [[0.0, 0.5]]), 3) == 0.25


def test_the_command_writes_rows_and_what_recognises_them_and_release_refuses_them(tmp_path, capsys):
    write_csv(tmp_path / "rows.csv", patients())
    (tmp_path / "columns.json").write_text(json.dumps(DECLARED))
    command = ["protect", "smote", str(tmp_path / "rows.csv"), f"--columns={tmp_path / 'columns.json'}"]
    assert main([*command, f"--out={tmp_path / 'moved'}", "--seed=1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["guarantee"] == "none"
    assert shown["neighbours"] == [5, 5]
    written = (tmp_path / "moved/rows.csv").read_text().splitlines()
    assert written[0] == "age,weight,finding"
    assert len(written) == 61
    statement = (tmp_path / "moved/PROTECTION.md").read_text()
    assert "most likely row, by the noise of the method itself" in statement
    assert "neighbours of the label with the fewest: 5" in statement
    assert main(["release", str(tmp_path / "moved"), str(tmp_path / "out.zip")]) == 2
    assert "efsgd protect smote" in capsys.readouterr().err
    assert main([*command, f"--out={tmp_path / 'again'}", "--seed=1"]) == 0
    assert (tmp_path / "again/rows.csv").read_text() == (tmp_path / "moved/rows.csv").read_text()
    assert main([*command, f"--out={tmp_path / 'fresh'}"]) == 0
    first, second = (sorted((tmp_path / f"{name}/rows.csv").read_text().splitlines()) for name in ("moved", "fresh"))
    assert first != second
    capsys.readouterr()
    assert main([*command, f"--out={tmp_path / 'other'}", "--seed=-1"]) == 2
    assert "seed is -1" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert main([*command, f"--out={tmp_path / 'moved'}"]) == 2
    assert "not an empty directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "declared", "says"),
    [
        ({"age": ["old", "30"]}, {"age": {"range": [0, 120]}}, "'old' in row 1"),
        ({"age": ["130", "30"]}, {"age": {"range": [0, 120]}}, "'130' in row 1"),
        ({"age": ["nan", "30"]}, {"age": {"range": [0, 120]}}, "'nan' in row 1"),
        ({"age": ["30", "30"]}, {"age": {"range": [120, 0]}}, "low below high"),
        ({"age": ["30", "30"]}, {"age": [0, 120], "sex": ["f"]}, "lacks the column 'sex'"),
        ({"a": ["1", "2"], "b": ["1", "2"]}, {"a": ["1", "2"], "b": ["1", "2"]}, "only the label may be one"),
        ({"a": ["1", "2"]}, {"a": ["1", "2"]}, "no numeric column"),
        ({"age": ["30"]}, {"age": {"range": [0, 120]}}, "at least 2"),
        ({"a": ["1", "2"], "b": ["1"]}, {"a": {"range": [0, 9]}, "b": {"range": [0, 9]}}, "1, 2 entries"),
        ({"age": ["1", "2"], "s": ["f", "x"]}, {"age": {"range": [0, 9]}, "s": ["f", "m"]}, "'x' in row 2"),
        ({"age": ["1", "2"], "s": ["f", "f"]}, {"age": {"range": [0, 9]}, "s": ["f", "f"]}, "'f' twice"),
        ({"age": ["1", "2"], "s": ["1", "1"]}, {"age": {"range": [0, 9]}, "s": ["1", 1]}, "'1' twice"),
        ({"age": ["1", "2"], "s": ["f", "f"]}, {"age": {"range": [0, 9]}, "s": []}, "without a value"),
        ({"a": ["1", "2"]}, {"a": {"range": [-1.7e308, 1.7e308]}}, "below 1.8e308"),
        ({"a": ["1", "2"]}, {"a": {"range": [0, 10**400]}}, "below 1.8e308"),
        ({"a": ["1", "2"]}, {"a": {"range": [-math.inf, 3]}}, "below 1.8e308"),
        ({"a": ["1", "2"]}, {"a": {"range": [math.nan, 3]}}, "low below high"),
        ({"a": ["1e16", "1e16"]}, {"a": {"range": [10**16, 10**16 + 40]}}, "too narrow for numbers as large as 1e.16"),
        ({"a": ["0", "0"]}, {"a": {"range": [0, 1e-320]}}, "narrower than"),
    ],
)
def test_tables_that_cannot_be_read_are_one_line(columns, declared, says):
    with pytest.raises(UserError, match=says):
        read_rows(columns, declared)


@pytest.mark.parametrize(
    "options",
    [*({"noise_scale": x} for x in (0.0, math.nan, 1e-320, 1e308)), {"neighbours": 0}],
)
def test_options_out_of_range_are_one_line(options):
    with pytest.raises(UserError, match=next(iter(options))):
        smote(np.zeros((4, 2)), np.zeros(4, int), **options)


@pytest.mark.parametrize(
    ("cells", "labels", "says"),
    [
        (np.zeros((4, 2)), np.zeros(3, int), "shape"),
        (np.full((4, 2), np.nan), np.zeros(4, int), "not in 0..1"),
        (np.full((4, 2), 16.0), np.zeros(4, int), "not in 0..1"),
        (np.zeros((4, 2)), np.full(4, -1), "at least 0"),
        (np.zeros((4, 2)), np.zeros(4), "integers"),
    ],
)
def test_rows_that_do_not_fit_are_one_line(cells, labels, says):
    with pytest.raises(UserError, match=says):
        smote(cells, labels)


def test_a_label_with_one_row_is_one_line():
    with pytest.raises(UserError, match=r"one row only.*: 1;"):
        smote(np.zeros((3, 2)), np.array([0, 0, 1]))


def test_the_widest_and_the_narrowest_ranges_that_are_taken_write_no_cell_of_the_original():
    for low, high in ((1e16, 1e16 + 2e7), (-8e307, 8e307), (0, 1e-289)):
        rows = read_rows({"a": [repr(low + k / 8 * (high - low)) for k in range(9)]}, {"a": {"range": [low, high]}})
        moved = smote(rows.cells, rows.labels)
        written, old = (np.array(rows.table(x, rows.labels)["a"], float) for x in (moved, rows.cells))
        assert np.isfinite(written).all()
        assert (written != old).all()


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_the_report_is_finite_at_the_ends_of_the_scale(scale):
    cells, labels = np.random.default_rng(0).random((30, 3)), np.zeros(30, int)
    cells[1] = cells[0] + 1e-15
    near, seen = near_rows(cells, labels, 2), smote(cells, labels, noise_scale=scale)
    assert np.isfinite(log_density(cells, scale)(seen[:, None], cells, cells[near.rows[:, 0]])).all()


def test_what_fails_is_one_line_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    write_csv(tmp_path / "rows.csv", patients() | {"finding": ["malignant"] + ["benign"] * 59})
    (tmp_path / "columns.json").write_text(json.dumps(DECLARED))
    out = tmp_path / "moved"
    command = ["protect", "smote", str(tmp_path / "rows.csv"), f"--columns={tmp_path / 'columns.json'}", f"--out={out}"]
    for flags, says in (
        (["--noise_scale=1e308"], "noise_scale is 1e+308"),
        (["--k=0"], "k is 0"),
        ([], "move towards: 'malignant'"),
    ):
        assert main([*command, *flags]) == 2
        assert says in capsys.readouterr().err
        assert not out.exists()

    def fail(*args, **options):
        raise UserError("the report failed")

    write_csv(tmp_path / "rows.csv", patients())
    monkeypatch.setattr("efsgd_jax.protect.smote_run.attack_report", fail)
    assert main(command) == 2
    assert not out.exists()


def test_a_file_of_columns_that_cannot_be_read_shows_an_example_of_this_command(tmp_path, capsys):
    write_csv(tmp_path / "rows.csv", patients())
    (tmp_path / "columns.json").write_text("[]")
    arguments = [str(tmp_path / "rows.csv"), f"--columns={tmp_path / 'columns.json'}", f"--out={tmp_path / 'moved'}"]
    assert main(["protect", "smote", *arguments]) == 2
    assert 'no JSON object; give one such as {"age": {"range": [0, 120]}}' in capsys.readouterr().err
