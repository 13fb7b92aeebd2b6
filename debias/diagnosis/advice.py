"""Three sentences of advice on a click log."""

from collections.abc import Mapping

from debias.diagnosis.finding import Finding
from debias.training.choice import advised

LIMITS = {  # what a finding of grade "caution" means, in a few words
    "confounding": "raw click rates mislead",
    "devices": "examination differs between devices",
    "populations": "clicks within a session depend on each other, as with several "
    "kinds of users",
    "neighbours": "an item's clicks depend on its neighbours",
    "calibration": "click predictions are miscalibrated, or cannot be checked, at some "
    "ranks",
    "overlap": "few items change rank",
    "weighting": "inverse weights are large",
}


KNOWN = ("connectivity", "profile")  # findings on whether the bias is identified
# Sessions per query: between the 4 and the 40 of the benchmark table `production`. The
# threshold was not measured more precisely.
MANY = 10


def expectation(sessions: int, queries: int) -> str:
    """Says whether to expect a gain from debiasing, based on sessions per query.

    The rule comes from the benchmark table `production`. With four sessions per query,
    debiased models were better than models of raw clicks only if the production ranker
    was weak. With forty sessions per query, debiased models were better, except if the
    production ranker was nearly perfect.

    >>> expectation(1_000, 240).split(":")[0]
    'There are 4.2 sessions per query'
    """
    each = sessions / max(queries, 1)
    counted = f"There are {each:,.0f}" if each >= MANY else f"There are {each:.1f}"
    if each < MANY:
        return (
            f"{counted} sessions per query: expect no gain over raw clicks if the "
            "logging ranker is good. In simulations, 4 were too few and 42 were enough."
        )
    return (
        f"{counted} sessions per query: expect a gain over raw clicks. The better the "
        "logging ranker, the smaller the gain."
    )


def advice(findings: Mapping[str, Finding]) -> tuple[str, str, str]:
    """Returns three sentences: on moved items, other findings, and the next step.

    Args:
        findings: Findings by name; see `debias.diagnosis.report.Diagnosis`.

    >>> good = Finding(verdict="", next_step="", grade="good")
    >>> advice({"connectivity": good, "profile": good})[1]
    'Nothing in this log contradicts a position-based model.'
    """
    grades = {name: each.grade for name, each in findings.items()}
    known = [grades.get(name, "bad") for name in KNOWN]
    found = [words for name, words in LIMITS.items() if grades.get(name) == "caution"]
    unknown = sum(grade == "unknown" for grade in grades.values())
    if found:
        second = f"In addition, {_listed(found)}."
    elif unknown:
        second = f"The log is too small to answer {unknown} of the questions below."
    else:
        second = "Nothing in this log contradicts a position-based model."
    if "bad" in known:
        few = "Too few items moved between ranks"
        if known[0] != "bad":
            few = "Items moved between ranks, but too few, or with too few clicks"
        return (
            f"{few}: a click may come from the rank or from the item, and no model can "
            "tell which.",
            second,
            f"Next: {'log for longer, or ' if known[0] != 'bad' else ''}exchange items "
            "at random in a small share of sessions; `debias plan` says which ranks, "
            "in how many sessions, and how many clicks that costs.",
        )
    first = "Items moved enough between ranks to compare each item with itself."
    if "caution" in known:
        first = (
            "Items moved between ranks, but so rarely that estimates are imprecise; "
            "more sessions or more exchanges would improve them."
        )
    cautions = [name for name, grade in grades.items() if grade == "caution"]
    return first, second, f"Next: {advised(cautions)}"


def _listed(parts: list[str]) -> str:
    """Joins parts of a sentence with commas and "and".

    >>> _listed(["a", "b", "c"]), _listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
