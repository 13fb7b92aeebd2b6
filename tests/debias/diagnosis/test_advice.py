"""Tests of debias.diagnosis.advice."""

import pytest

from debias.diagnosis.advice import KNOWN, LIMITS, advice, expectation
from debias.diagnosis.finding import Finding
from debias.diagnosis.report import TITLES


def graded(**grades):
    grades = {"connectivity": "good", "profile": "good", **grades}
    return {
        name: Finding(verdict="", next_step="", grade=grade)
        for name, grade in grades.items()
    }


@pytest.mark.parametrize(
    "grades, words",
    [
        ({}, ("moved enough", "Nothing in", "try `debias train --model auto`")),
        ({"connectivity": "bad"}, ("Too few items", "Nothing", "`debias plan`")),
        ({"profile": "bad"}, ("Items moved", "Nothing", "Next: log for longer, or")),
        ({"profile": "caution"}, ("imprecise", "Nothing", "--model auto")),
        ({"overlap": "unknown"}, ("enough", "answer 1 of the", "--model auto")),
        (
            {"calibration": "caution"},
            ("enough", "or cannot be checked", "--model auto"),
        ),
        (
            {"populations": "caution"},
            ("enough", "several kinds", "mixtures learn kinds of users"),
        ),
        (
            {"neighbours": "caution", "confounding": "caution"},
            (
                "enough",
                "rates mislead and an item's clicks depend",
                "xpa reads neighbours",
            ),
        ),
    ],
)
def test_advice_follows_the_findings(grades, words):
    for sentence, part in zip(advice(graded(**grades)), words, strict=True):
        assert part in sentence and sentence.endswith(".") and len(sentence) < 200


def test_a_log_without_findings_cannot_tell():
    assert "no model can tell" in advice({})[0]


def test_limits_are_named_as_the_findings_are():
    assert set(LIMITS) | set(KNOWN) == set(TITLES)


@pytest.mark.parametrize(
    "sessions, words",
    [
        (1_000, "4.2 sessions per query: expect no gain"),
        (10_000, "42 sessions per query"),
    ],
)
def test_sessions_a_query_say_what_to_expect(sessions, words):
    assert words in expectation(sessions, 240)
