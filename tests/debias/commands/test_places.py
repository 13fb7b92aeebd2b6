"""Files that commands are to write."""

import pytest

from debias.commands.places import check_free, check_unfilled


def test_a_file_may_be_written_before_the_work_is_done(tmp_path, monkeypatch):
    there = tmp_path / "there.csv"
    there.touch()
    check_free(tmp_path / "new" / "file.csv", force=False)
    check_free(there, force=True)
    with pytest.raises(ValueError, match=r"there\.csv: exists; --force replaces it"):
        check_free(there, force=False)
    for force in (False, True):
        with pytest.raises(ValueError, match="with files, which --force does not repl"):
            check_unfilled(tmp_path, force)
    with pytest.raises(ValueError, match=r"there\.csv: exists; --force replaces it"):
        check_unfilled(there, force=False)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match="cannot be written: choose another folder"):
        check_free(tmp_path / "new" / "file.csv", force=False)
