"""Atomic writes: what is there afterwards, and what cannot be written."""

import stat

import pytest

from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic, write_json


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"old": 1}, private=True)
    before = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def fail():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("private", [False, True])
def test_a_place_that_is_no_directory_is_one_line(tmp_path, private):
    (tmp_path / "file").write_text("not a directory")
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "deeper" / "a.json"):
        with pytest.raises(UserError, match="cannot write") as error:
            write_json(path, {}, private=private)
        assert len(str(error.value).splitlines()) == 1
    assert (tmp_path / "file").read_text() == "not a directory"
