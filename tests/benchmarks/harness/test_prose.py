"""Tests of benchmarks.harness.prose."""

import re

import pytest

from benchmarks.harness import store
from benchmarks.harness.prose import check
from tests.benchmarks.fakes import Fake, records, table

BASE = {0: 0.50, 1: 0.40, 2: 0.45, 3: 0.25}
BETTER = {0: 0.54, 1: 0.42, 2: 0.48, 3: 0.32}

TABLE = table(Fake("additive"), Fake("dot"), Fake("dot", "grid"))
TABLES = {"main": TABLE}
PROSE = """# Title

The dot product gains <!-- number: main mixed dot ndcg@5 difference_percent -->?<!-- \
/number --> over additive.

<!-- table:main population=mixed columns=ndcg@5,difference:ndcg@5 -->
<!-- /table -->

```
<!-- table:nothing -->
```
and `<!-- number: nothing -->`.
"""


@pytest.fixture
def tree(tmp_path):
    for row, values in (("additive", BASE), ("dot", BETTER)):
        for record in records(values, row):
            store.append(tmp_path / "results" / "main.jsonl", record)
    (tmp_path / "README.md").write_text(PROSE)
    (tmp_path / "benchmarks").mkdir()
    return tmp_path


def checked(tree, write=False):
    return check(tree, TABLES, tree / "results", write)


def test_check_names_file_line_and_table_and_write_mends_it(tree):
    number, block = checked(tree)
    assert number.startswith("README.md:3: number main mixed dot ndcg@5")
    assert "has '?', expected '+10.0%'" in number
    assert block.startswith("README.md:5: table main population=mixed")
    assert checked(tree, write=True) == [] == checked(tree)
    text = (tree / "README.md").read_text()
    assert "difference_percent -->+10.0%<!-- /number --> over" in text
    assert "| **dot** | **.4400 ±" in text and "<!-- table:nothing -->" in text
    assert text.endswith(PROSE[PROSE.index("```") :])


def test_check_fails_on_a_changed_digit_anywhere(tree):
    checked(tree, write=True)
    path = tree / "README.md"
    good = path.read_text()
    end = good.index("```")
    markers = [match.span() for match in re.finditer("<!--.*?-->", good)]
    digits = [
        i
        for i in range(end)
        if good[i].isdigit() and not any(a <= i < b for a, b in markers)
    ]
    assert len(digits) > 20
    for i in digits:
        path.write_text(good[:i] + str((int(good[i]) + 1) % 10) + good[i + 1 :])
        (problem,) = checked(tree)
        assert problem.startswith("README.md:") and "main" in problem
    path.write_text(good)
    assert checked(tree) == []


def test_check_fails_on_changed_results(tree):
    checked(tree, write=True)
    store.append(tree / "results" / "main.jsonl", records({3: 0.33}, "dot")[0])
    assert len(checked(tree)) == 2


@pytest.mark.parametrize(
    "text, problem",
    [
        ("<!-- table:mian --><!-- /table -->", "did you mean main"),
        ("<!-- table:main population=mixd --><!-- /table -->", "did you mean mixed"),
        ("<!-- table:main dataset=other --><!-- /table -->", "no option 'dataset'"),
        (
            "<!-- table:main population=grid --><!-- /table -->",
            "no results of table main on grid",
        ),
        ("<!-- table:main rows=dott --><!-- /table -->", "did you mean dot"),
        ("<!-- table:main baseline=x --><!-- /table -->", "no row 'x'"),
        ("<!-- table:main colums=p --><!-- /table -->", "did you mean columns"),
        ("<!-- table:main columns=q:ndcg@5 --><!-- /table -->", "no kind of column"),
        ("<!-- table:main columns=ndcg@6 --><!-- /table -->", "no metric 'ndcg@6'"),
        ("<!-- table: --><!-- /table -->", "expected one table name"),
        ("<!-- table:main -->", "not closed"),
        ("<!-- table:main --><!-- /number -->", "not closed"),
        ("<!-- /table -->", "closed but not opened"),
        ("<!-- number: main mixed dot ndcg@5 -->1<!-- /number -->", "expected TABLE"),
        ("<!-- number: main mixed dot ndcg@5 men -->1<!-- /number -->", "mean"),
        (
            "<!-- number: main mixed dot mrr mean -->1<!-- /number -->",
            "no results of mrr",
        ),
        (
            "<!-- number: main mixed additive ndcg@5 difference -->1<!-- /number -->",
            "no difference",
        ),
        (
            "<!-- number: main mixed dot ndcg@5 mean digits=x -->1<!-- /number -->",
            "digits",
        ),
    ],
)
def test_check_reports_markers_that_it_cannot_fill(tree, text, problem):
    (tree / "README.md").write_text(f"one\n\n{text}\n")
    found, *also = checked(tree, write=True)
    assert found.startswith("README.md:3: ") and problem in found
    assert len(also) == ("/number" in text and "table" in text)  # neither is of a pair
    assert (tree / "README.md").read_text() == f"one\n\n{text}\n"


def test_check_reports_damaged_and_unknown_results(tree):
    checked(tree, write=True)
    (tree / "results" / "mian.jsonl").write_text("")
    path = tree / "results" / "main.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    problems = checked(tree)
    assert any("main.jsonl, line 8: dropped" in problem for problem in problems)
    assert any("no table 'mian'; did you mean main" in problem for problem in problems)


def test_one_table_of_populations_by_rows(tree):
    marker = "<!-- table:main cells=difference:ndcg@5 -->"
    (tree / "README.md").write_text(f"{marker}<!-- /table -->")
    assert checked(tree, write=True) == [] == checked(tree)
    text = (tree / "README.md").read_text()
    assert "|  | dot |" in text and "| mixed | **+10.00% ±" in text


def test_another_baseline_and_other_digits(tree):
    text = (
        "<!-- number: main mixed additive ndcg@5 difference_percent to=dot digits=2 -->"
        "-9.09%<!-- /number -->"  # -.04 of .44
    )
    (tree / "README.md").write_text(text)
    assert checked(tree) == []


def test_markers_in_other_folders_are_checked(tree):
    (tree / "README.md").write_text("")
    for folder in ("docs/deep", "benchmarks"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
        (tree / folder / "page.md").write_text("<!-- table:main --><!-- /table -->")
    assert [problem.split(":")[0] for problem in checked(tree)] == [
        "benchmarks/page.md",
        "docs/deep/page.md",
    ]
