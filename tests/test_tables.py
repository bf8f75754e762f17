"""Small tables: declared columns, a private Born machine, exact probabilities, files, and what is refused."""

import itertools
import json

import jax
import numpy as np
import pytest

from efsgd_jax import UserError
from efsgd_jax.audit.membership import audit_table
from efsgd_jax.cli.main import main
from efsgd_jax.tables import Columns, Options, Table, fit_table
from efsgd_jax.tables.files import read_rows

RNG = np.random.default_rng(0)
DECLARED = {"site": ["a", "b", "c"], "age": {"edges": [0, 18, 65, 120]}, "ill": ["no", "yes"]}
SITE = RNG.choice(["a", "b", "c"], 2000, p=[0.6, 0.3, 0.1])
ILL = np.where(RNG.random(2000) < np.where(SITE == "a", 0.1, 0.8), "yes", "no")
ROWS = {"site": SITE.tolist(), "age": RNG.uniform(-5, 130, 2000).tolist(), "ill": ILL.tolist(), "name": ["x"] * 2000}


@pytest.fixture(scope="module")
def table():
    return fit_table(ROWS, DECLARED, epsilon=8.0, options=Options(steps=150, expected_batch_size=400))


def test_it_spends_at_most_epsilon_and_never_draws_what_a_column_lacks(table):
    assert 7.5 < table.epsilon <= 8.0
    found = table.sample(3000, jax.random.key(0))
    assert list(found) == list(DECLARED)
    assert set(found["site"]) <= {"a", "b", "c"}
    assert set(found["age"]) <= {"0 to 18", "18 to 65", "65 to 120"}
    assert set(found["ill"]) <= {"no", "yes"}


def test_what_columns_have_in_common_is_learned(table):
    found = table.sample(5000, jax.random.key(1))
    site, ill = np.array(found["site"]), np.array(found["ill"]) == "yes"
    assert ill[site == "a"].mean() < 0.3
    assert ill[site != "a"].mean() > 0.6
    assert abs((site == "a").mean() - 0.6) < 0.1


def test_a_clip_norm_that_clips_nearly_all_makes_frequent_values_more_frequent():
    options = Options(steps=100, expected_batch_size=400, l2_norm_clip=1.0)
    found = fit_table(ROWS, DECLARED, epsilon=8.0, options=options).sample(5000, jax.random.key(1))
    assert (np.array(found["site"]) == "a").mean() > 0.7  # 0.6 of the real rows


def test_probabilities_of_all_rows_sum_to_one(table):
    every = list(itertools.product(*table.columns.values))
    middle = {"0 to 18": 9, "18 to 65": 40, "65 to 120": 90}
    rows = {n: [middle.get(row[i], row[i]) for row in every] for i, n in enumerate(table.columns.names)}
    assert np.exp(table.log_likelihood(rows)).sum() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("n", "key", "reason"), [(0, None, "at least 1"), (2.5, None, "whole"), (5, 0, "PRNG key")])
def test_a_number_of_rows_and_a_key_are_checked(table, n, key, reason):
    with pytest.raises(UserError, match=reason):
        table.sample(n, key)


def test_one_record_more_at_the_front_moves_no_other():
    columns = Columns.declared(DECLARED)
    before = columns.encode(ROWS)
    more = {name: [first, *ROWS[name]] for name, first in (("site", "c"), ("age", 1e9), ("ill", "yes"))}
    np.testing.assert_array_equal(columns.encode(more)[1:], before)


def test_a_written_table_is_the_same(table, tmp_path):
    again = Table.read(table.write(tmp_path / "table.json"))
    assert again.columns == table.columns
    assert (again.epsilon, again.delta, again.dataset_size) == (table.epsilon, table.delta, 2000)
    key = jax.random.key(2)
    assert again.sample(50, key) == table.sample(50, key)
    np.testing.assert_allclose(again.log_likelihood(ROWS), table.log_likelihood(ROWS), rtol=1e-5)


def test_numbers_beyond_the_edges_belong_to_the_first_and_the_last_interval():
    columns = Columns.declared({"x": {"edges": [0, 1, 2]}, "y": ["1", "True"]})
    assert columns.encode({"x": ["-9", 0, 1, 2, "inf"], "y": [1, 1, True, 1, 1]}).tolist() == [
        [0, 0], [0, 0], [1, 1], [1, 0], [1, 0],
    ]  # fmt: skip
    assert Columns.declared(columns.as_declared()) == columns


def tried(**options):
    return fit_table(ROWS, DECLARED, epsilon=1.0, options=Options(**options))


REFUSED = {
    "an entry that is not declared": (lambda: Columns.declared({"a": ["x", "y"]}).encode({"a": ["x", "z"]}), "row 2"),
    "a text for a number": (lambda: Columns.declared({"a": {"edges": [0, 1, 2]}}).encode({"a": ["old"]}), "a number"),
    "NaN": (lambda: Columns.declared({"a": {"edges": [0, 1, 2]}}).encode({"a": ["nan"]}), "a number"),
    "no such column": (lambda: Columns.declared({"a": ["x", "y"]}).encode({"b": ["x"]}), "lack the column 'a'"),
    "columns of two lengths": (
        lambda: Columns.declared({"a": ["x", "y"], "b": ["x", "y"]}).encode({"a": ["x"], "b": []}), "0, 1 entries"
    ),
    "one value": (lambda: Columns.declared({"a": ["x"]}), "at least 2 values"),
    "equal values": (lambda: Columns.declared({"a": ["1", 1]}), "all different"),
    "a word for values": (lambda: Columns.declared({"a": "xy"}), "at least 2 values"),
    "edges that fall": (lambda: Columns.declared({"a": {"edges": [2, 1, 0]}}), "rise"),
    "two edges": (lambda: Columns.declared({"a": {"edges": [0, 1]}}), "at least 3"),
    "an infinite edge": (lambda: Columns.declared({"a": {"edges": [0, 1, float("inf")]}}), "finite"),
    "a number as name": (lambda: Columns.declared({1: ["x", "y"]}), "named 1"),
    "a text as column": (lambda: Columns.declared({"a": ["x", "y"]}).encode({"a": "xyx"}), "one text"),
    "no bond": (lambda: tried(bond=0), "bond is 0"),
    "an average that grows": (
        lambda: tried(ema_decay=2.0), "ema_decay is 2.0"
    ),
    "a NaN clip norm": (
        lambda: tried(l2_norm_clip=float("nan")), "l2_norm_clip is nan"
    ),
    "a NaN learning rate": (
        lambda: tried(learning_rate=float("nan")), "learning_rate is nan"
    ),
    "an empty batch": (
        lambda: tried(expected_batch_size=0), "expected_batch_size is 0"
    ),
    "no column": (lambda: Columns.declared({}), "1 to 256 columns"),
    "no row": (lambda: fit_table({"a": []}, {"a": ["x", "y"]}, epsilon=1.0), "no row"),
    "a large delta": (lambda: fit_table({"a": ["x"] * 99}, {"a": ["x", "y"]}, epsilon=1.0, delta=0.02), "below 1/N"),
    "no epsilon": (lambda: fit_table({"a": ["x"] * 99}, {"a": ["x", "y"]}, epsilon=0.0), "epsilon"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_refused(case):
    call, reason = REFUSED[case]
    with pytest.raises(UserError, match=reason):
        call()


BITS = [str(i) for i in range(24)]
DECLARED_BITS = {name: ["0", "1"] for name in BITS}


def random_bits(n, seed):
    rows = np.random.default_rng(seed).integers(0, 2, (len(BITS), n)).astype(str)
    return dict(zip(BITS, rows.tolist(), strict=True))


def test_the_attack_tells_memorised_rows_and_refutes_a_false_claim():
    used, unused = random_bits(60, 1), random_bits(60, 2)
    options = Options(steps=100, expected_batch_size=60, bond=16, l2_norm_clip=30.0)
    memory = fit_table(used, DECLARED_BITS, epsilon=200.0, options=options)
    found = audit_table(memory, used, unused)
    assert found.curve > 0.9
    assert 1.0 < found.bound < found.claimed
    assert audit_table(memory._replace(epsilon=0.5), used, unused).bound > 0.5
    honest = fit_table(used, DECLARED_BITS, epsilon=0.5, options=options)
    assert audit_table(honest, used, unused).bound <= 0.5
    with pytest.raises(UserError, match="NaN"):
        audit_table(honest._replace(chain=jax.tree.map(lambda x: x * np.nan, honest.chain)), used, unused)


def test_the_command_attacks_a_table(tmp_path, capsys):
    for name, seed in (("used", 1), ("unused", 2)):
        rows = random_bits(300, seed)
        lines = [",".join(row) for row in zip(*rows.values(), strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join([",".join(BITS), *lines]))
    table = fit_table(random_bits(300, 1), DECLARED_BITS, epsilon=2.0, delta=1e-3)
    asked = ["audit", f"--table={table.write(tmp_path / 'table.json')}"]
    assert main([*asked, f"--used={tmp_path / 'used.csv'}", f"--unused={tmp_path / 'unused.csv'}"]) == 0
    assert "300 rows that were used and as many others" in capsys.readouterr().out
    assert main([*asked, f"--used={tmp_path / 'unused.csv'}"]) == 2
    assert "go together" in capsys.readouterr().err
    assert main(["audit", f"--used={tmp_path / 'used.csv'}"]) == 2
    assert "go together" in capsys.readouterr().err
    short = tmp_path / "short.csv"
    short.write_text("\n".join((tmp_path / "used.csv").read_text().splitlines()[:100]))
    assert main([*asked, f"--used={short}", f"--unused={tmp_path / 'unused.csv'}"]) == 2
    assert "fitted to 300 rows, and 99 are given" in capsys.readouterr().err


def test_the_command_writes_what_may_be_published(tmp_path, capsys):
    lines = [",".join(map(str, row)) for row in zip(*ROWS.values(), strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["\ufeffsite,age,ill,name", *lines]), encoding="utf-8")
    (tmp_path / "columns.json").write_text(json.dumps(DECLARED))
    asked = ["table", str(tmp_path / "rows.csv"), f"--columns={tmp_path / 'columns.json'}", "--epsilon=2", "--n=70"]
    assert main([*asked, f"--out={tmp_path / 'out'}"]) == 0
    assert "may be published: table.json, synthetic.csv, PRIVACY.md" in capsys.readouterr().out
    found = read_rows(tmp_path / "out/synthetic.csv")
    assert list(found) == ["site", "age", "ill"]
    assert len(found["site"]) == 70
    text = (tmp_path / "out/PRIVACY.md").read_text()
    assert "for one row of the table" in text
    assert "number of rows, 2,000" in text
    assert main([*asked, f"--out={tmp_path / 'out'}"]) == 2
    assert "has a table already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"a,a\n1,2\n", "two columns 'a'"),
        (b"a,b\n1\n", "line 2"),
        (b"a\n\xff\n", "UTF-8"),
        (b'a\n"x\n', "cannot read"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, reason):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_rows(tmp_path / "rows.csv")


def test_a_damaged_model_is_refused(tmp_path):
    (tmp_path / "table.json").write_text('{"columns": {"a": ["x", "y"]}}')
    with pytest.raises(UserError, match="cannot read a table"):
        Table.read(tmp_path / "table.json")
