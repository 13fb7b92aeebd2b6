"""Tests of debias.data.yandex."""

import pytest

from debias.data.yandex import read_yandex
from tests.debias.propensity.real import yandex


def write(folder, text):
    path = folder / "sessions"
    path.write_text(text)
    return path


def test_files_share_their_numbers(tmp_path):
    first = write(tmp_path, "a_1\t7,8 : 8 , 8; b_1\t7,9 :\n\n")
    second = tmp_path / "other"
    second.write_text("b_1\t9,5 : 5 ;  ")
    read = read_yandex(first, second)
    assert read.queries == ("a_1", "b_1")
    assert read.items == (
        ("a_1", "7"),
        ("a_1", "8"),
        ("b_1", "7"),
        ("b_1", "9"),
        ("b_1", "5"),
    )
    one, other = read.logs
    assert one.item.tolist() == [[0, 1], [2, 3]]
    assert one.click.tolist() == [[False, True], [False, False]]
    assert (other.query.tolist(), other.item.tolist()) == ([1], [[3, 4]])
    assert other.click.tolist() == [[False, True]]


def test_a_click_off_the_page_is_dropped_and_counted_once(tmp_path):
    read = read_yandex(write(tmp_path, "a\t1,2 : 3 , 3 , 2 , 4"))
    assert read.dropped == (2,) and read.logs[0].click.sum() == 1


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("a\t1 : 1\na 1 : 1", "line 2: a session must read"),
        ("a\t1,2", "line 1: a session must read"),
        ("a\t : 1", "line 1: a session must read"),
        ("a\t1,2,1 : 1", "line 1: a page shows a document twice"),
        ("\n ; \n", "holds no session"),
    ],
)
def test_rejects(tmp_path, text, wrong):
    with pytest.raises(ValueError, match=wrong):
        read_yandex(write(tmp_path, text))


def test_no_file_no_log():
    assert read_yandex() == ((), (), (), ())


def test_the_sample_has_the_published_counts():
    read = yandex()
    train, test = read.logs
    assert (train.sessions, test.sessions) == (35_064, 21_413)
    assert (train.click.sum(), test.click.sum()) == (42_703, 31_243)
    assert len(read.queries) == 20 and read.dropped == (369, 236)
