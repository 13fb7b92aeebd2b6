"""Advice on a log in three sentences."""

from collections.abc import Mapping

from debias.diagnosis.finding import Finding
from debias.training.choice import advised

LIMITS = {  # what a finding of grade "caution" says of a log, in a few words
    "confounding": "raw click rates mislead",
    "devices": "devices are read differently",
    "populations": "clicks of a session depend on each other, as with several kinds of "
    "users",
    "neighbours": "an item's clicks depend on its neighbours",
    "calibration": "predicted clicks do not come true, or cannot be checked, at some "
    "ranks",
    "overlap": "few items move",
    "weighting": "inverse weights are large",
}


KNOWN = ("connectivity", "profile")  # what says whether a log can tell at all
# Sessions a query, between the four and the forty of table `production` of the
# benchmarks; where debiasing begins to pay was not measured more closely.
MANY = 10


def expectation(sessions: int, queries: int) -> str:
    """The gain from debiasing on simulated logs with as many sessions per query.

    The rule comes from the benchmark table `production`. With four sessions per query,
    debiased models were worse than raw clicks, unless the production ranker was weak.
    With forty, they were better, unless that ranker was nearly perfect.

    >>> expectation(1_000, 240).split(":")[0]
    'There are 4.2 sessions a query'
    """
    each = sessions / max(queries, 1)
    counted = f"There are {each:,.0f}" if each >= MANY else f"There are {each:.1f}"
    if each < MANY:
        return (
            f"{counted} sessions a query: expect no gain over raw clicks if the ranker "
            "that made this log is good; in simulations 4 were too few, and 42 enough."
        )
    return (
        f"{counted} sessions a query: expect a gain over raw clicks. The better the "
        "ranker that made this log, the smaller the gain."
    )


def advice(findings: Mapping[str, Finding]) -> tuple[str, str, str]:
    """Three sentences: whether items moved enough, other findings, and what to do.

    Args:
        findings: Findings by name, as in `debias.diagnosis.report.Diagnosis`.

    >>> good = Finding(verdict="", next_step="", grade="good")
    >>> advice({"connectivity": good, "profile": good})[1]
    'Nothing was found that a position-based model cannot say.'
    """
    grades = {name: each.grade for name, each in findings.items()}
    known = [grades.get(name, "bad") for name in KNOWN]
    found = [words for name, words in LIMITS.items() if grades.get(name) == "caution"]
    unknown = sum(grade == "unknown" for grade in grades.values())
    if found:
        second = f"Beside that, {_listed(found)}."
    elif unknown:
        second = f"For {unknown} of the questions below the log is too small."
    else:
        second = "Nothing was found that a position-based model cannot say."
    if "bad" in known:
        few = "Too few items moved between ranks"
        if known[0] != "bad":
            few = "Items moved between ranks, but too few of them or too seldom clicked"
        return (
            f"{few}: a click may come from the rank or from the item, and no model can "
            "tell which.",
            second,
            f"Next: {'log longer, or ' if known[0] != 'bad' else ''}exchange items at "
            "random in a small share of sessions; `debias plan` says which ranks, in "
            "how many sessions, and what that costs in clicks.",
        )
    first = "Items moved enough between ranks that an item can be compared with itself."
    if "caution" in known:
        first = (
            "Items moved between ranks, but so few of them that estimates have wide "
            "margins: more sessions or more exchanges would narrow them."
        )
    cautions = [name for name, grade in grades.items() if grade == "caution"]
    return first, second, f"Next: {advised(cautions)}"


def _listed(parts: list[str]) -> str:
    """Joins parts of a sentence with commas and "and".

    >>> _listed(["a", "b", "c"]), _listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
