"""Every kind of odd input is read to the right images, or refused in one line that names what is wrong.

``pytest -s tests/test_malformed.py`` prints the table.
"""

import collections
import os

import numpy as np
import pytest
from layouts import LAYOUT_CASES
from malformed import CASES as MALFORMED

from efsgd_jax import load_dataset
from efsgd_jax.errors import UserError

CASES = MALFORMED + LAYOUT_CASES
OUTCOMES: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    print("\n| source | read | refused |\n|---|---|---|")
    for source, counts in OUTCOMES.items():
        print(f"| {source} | {counts['read']} | {counts['refused']} |")


@pytest.mark.parametrize("case", CASES, ids=[f"{c.source}: {c.kind}" for c in CASES])
def test_malformed_input_is_refused_by_name_or_read_and_nothing_is_written(case, tmp_path, monkeypatch):
    root = tmp_path / "input"
    root.mkdir()
    path = case.make(root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    before = sorted(os.fsencode(p) for p in tmp_path.rglob("*"))
    if case.blamed:
        with pytest.raises(UserError) as refused:
            load_dataset(case.source, path=path, **case.options)
        assert case.blamed in str(refused.value)
        OUTCOMES[case.source]["refused"] += 1
    else:
        data = load_dataset(case.source, path=path, **case.options)
        every = np.concatenate([data.train_images, data.test_images])
        assert any((x == case.expected).all() for x in every), every[-1]
        OUTCOMES[case.source]["read"] += 1
    # Nothing was unpacked, unpickled or written anywhere.
    assert sorted(os.fsencode(p) for p in tmp_path.rglob("*")) == before


def test_the_corpus_is_large():
    assert len(CASES) >= 130
    assert len({(c.source, c.kind) for c in CASES}) == len(CASES)
