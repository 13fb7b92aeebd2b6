"""Every page that people open passes axe, the checker of accessibility."""

from importlib.resources import files

import pytest

from tests.browser import CHROMIUM, violations

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def diagnosis():
    from tests.debias.diagnosis.test_report import page

    return page()


def results():
    from tests.debias.training.test_pages import made

    return made()


def service():
    return files("debias.serve").joinpath("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [diagnosis, results, service])
def test_axe_finds_nothing(page, tmp_path):
    assert violations(page(), tmp_path) == []


def test_axe_finds_what_is_wrong(tmp_path):
    wrong = results().replace(' lang="en"', "")
    assert [each.split(":")[0] for each in violations(wrong, tmp_path)] == [
        "html-has-lang"
    ]
