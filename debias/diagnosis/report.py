"""Runs all diagnoses of a log and renders them as one page.

`diagnose` computes the findings, `page` renders them as HTML, and `report` does both.
These functions write no files.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from debias.data import ClickLog, RankingData, Stream
from debias.data.summary import Summary, count
from debias.data.text import printable
from debias.diagnosis.advice import KNOWN, advice, expectation
from debias.diagnosis.calibration import calibration
from debias.diagnosis.devices import devices as compare_devices
from debias.diagnosis.devices import label
from debias.diagnosis.finding import Finding
from debias.diagnosis.identifiability import confounding, connectivity, overlap, profile
from debias.diagnosis.neighbours import neighbours
from debias.diagnosis.populations import populations
from debias.diagnosis.presented import Presented, presented
from debias.diagnosis.weighting import weighting
from debias.propensity import Examination, estimate
from debias.training import pages
from debias.types import Over

MAX_SESSIONS = 100_000
# The slow computations in order, in rough shares of the total time. The linear ones of
# features need most memory, and run at different times.
COST = {
    "populations": 20,
    "bias_tower": 15,
    "profile": 11,
    "regression_em": 11,
    "neighbours": 9,
    "dla": 10,
    "calibration": 2,
}
LATE = ("devices", "confounding", "weighting")  # these read earlier results
THREADS = 2  # computations at once: most of their time is outside of the interpreter
AS_LONG = 50_000_000  # sessions on disk: reading them twice takes as long as analysis
BEST = "pbm_conditional"  # uses all clicks of shared items, and has an interval
TABULAR = (
    "ctr",
    "pivot",
    "adjacent_chain",
    "all_pairs",
    "pbm_em",
    "pbm_mle",
    BEST,
    "dla",
)
WITH_FEATURES = ("regression_em", "bias_tower")
NAMES = {
    "ctr": "raw click rate",
    "pivot": "harvesting, pivot",
    "adjacent_chain": "harvesting, adjacent",
    "all_pairs": "harvesting, all pairs",
    "pbm_em": "PBM by EM",
    "pbm_mle": "PBM, maximum",
    BEST: "PBM, conditional",
    "dla": "DLA",
    "regression_em": "regression-EM",
    "bias_tower": "bias tower",
}
EXPLAINED = {
    "ctr": "Click rate of each rank, relative to rank 1. It mixes how often users "
    "examine a rank with how good its items are.",
    "pivot": "Compares items that were shown both at rank 1 and at the other rank.",
    "adjacent_chain": "Compares items shown at two neighbouring ranks, and multiplies "
    "the ratios down the list.",
    "all_pairs": "Compares items shown at any two ranks, jointly for all ranks.",
    "pbm_em": "Position-based model with an attraction for each query and item, by "
    "expectation maximisation. It is biased if items have few impressions.",
    "pbm_mle": "Position-based model with an attraction for each query and item, at "
    "maximum likelihood. It is biased if items have few impressions.",
    BEST: "Position-based model, conditional on the number of clicks of each item. It "
    "uses every click on items that moved, and its interval is valid. Prefer it.",
    "dla": "Dual learning algorithm: a ranker and inverse propensities, estimated from "
    "each other.",
    "regression_em": "Position-based model with relevance as a regression on features.",
    "bias_tower": "The bias tower of a two-tower model that reads the features.",
}
TITLES = {
    "connectivity": "Can the ranks be compared?",
    "profile": "Is the bias of each rank identified?",
    "confounding": "Do raw click rates mislead?",
    "overlap": "Does the policy move items?",
    "devices": "Is examination alike on all devices?",
    "populations": "Is one population enough?",
    "neighbours": "Do neighbours matter?",
    "calibration": "Are click predictions calibrated?",
    "weighting": "What do inverse weights cost?",
}


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The diagnosis of a log.

    Attributes:
        summary: Summary of the whole log.
        sessions: Number of analysed sessions: all sessions, or a random sample.
        seed: Random seed of the sample and of all later draws.
        estimates: Estimates of examination by method.
        by_device: Examination curve of each device; None if the log has one device, or
            if the curves could not be estimated.
        findings: Findings by name, in the order of `TITLES`.
        skipped: Reason why a finding or estimate could not be computed, by name of the
            finding or estimate.
        devices: Names of devices by code.
        shown: Examination curves by name of the presentation column, then by label.
    """

    summary: Summary
    sessions: int
    seed: int
    estimates: Mapping[str, Examination]
    by_device: Examination | None
    findings: Mapping[str, Finding]
    skipped: Mapping[str, str]
    devices: Mapping[int, str] = field(default_factory=dict)
    shown: Mapping[str, Mapping[str, Examination]] = field(default_factory=dict)

    @property
    def titles(self) -> dict[str, str]:
        """The question that each finding answers, by name of the finding."""
        columns = [n for n in self.findings if n not in TITLES]
        return TITLES | {n: f"Does {n} change examination?" for n in columns}

    @property
    def headline(self) -> str:
        """One sentence on whether the log separates examination from relevance."""
        grades = {name: found.grade for name, found in self.findings.items()}
        known = [grades.get(name, "bad") for name in KNOWN]
        if "bad" in known:
            return "This log cannot tell examination from relevance at every rank."
        sure = "can" if "caution" not in known else "can, with wide intervals,"
        if grades.get("confounding") == "caution":
            return (
                f"This log {sure} tell examination from relevance; raw click rates "
                "would mislead."
            )
        return f"This log {sure} tell examination from relevance."

    @property
    def advice(self) -> tuple[str, ...]:
        """Advice on what to conclude, expect and do; see `debias.diagnosis.advice`.

        The expected gain is left out if the log does not identify examination.
        """
        first, second, last = advice(self.findings)
        grades = [self.findings[name].grade for name in KNOWN if name in self.findings]
        if len(grades) < len(KNOWN) or "bad" in grades:
            return first, second, last
        expected = expectation(self.summary.sessions, self.summary.queries)
        return first, second, expected, last

    def record(self) -> dict[str, Any]:
        """The diagnosis as JSON values; unknown values are None."""
        estimates = list(self.estimates.values())
        if self.by_device is not None:
            estimates.append(self.by_device)
        return {
            "headline": self.headline,
            "advice": list(self.advice),
            "summary": self.summary.record(),
            "sessions_analysed": self.sessions,
            "seed": self.seed,
            "estimates": [_json(row) for each in estimates for row in each.records()],
            "degenerate": {e.method: e.degenerate for e in estimates if e.degenerate},
            "findings": {name: _json(found) for name, found in self.findings.items()},
            "skipped": dict(self.skipped),
            "devices": {str(code): name for code, name in self.devices.items()},
        }


def diagnose(
    log: ClickLog | Stream,
    data: RankingData | None = None,
    max_sessions: int = MAX_SESSIONS,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
    devices: Sequence[str] = (),
    labels: Mapping[str, Sequence[str]] | None = None,
    over: Over = map,
) -> Diagnosis:
    """Runs every estimator and every diagnosis that the log allows.

    Args:
        log: The click log, in memory or on disk. For a log on disk, only the sample is
            held in memory.
        data: Features of the log's items. If given, estimators that read features run
            as well.
        max_sessions: Largest number of sessions to analyse; a longer log is sampled
            uniformly.
        seed: Random seed of the sample, of held-out sessions and of training.
        progress: Function to call with the share of finished work.
        devices: Names of the devices with the codes 1, 2 and so on.
        labels: For each presentation column, the labels of the codes 1, 2 and so on.
        over: Function that processes the files of a log on disk: `map`, or a parallel
            function with the arguments and results of `map`.

    Raises:
        ValueError: The log has no session, or a file on disk is damaged.
    """
    reading = 0.0  # share of the total work
    if isinstance(log, Stream):
        reading = log.total / (log.total + AS_LONG)
    counted = count(log, lambda share: progress(reading * share / 2), over)
    summary = counted.summary()

    def sampled(share: float) -> None:
        progress(reading * (1 + share) / 2)

    log = _some(log, max_sessions, seed, sampled, over)
    names = {code: printable(name) for code, name in enumerate(devices, start=1)}
    found: dict[str, Any] = {}
    runs = _runs(log, data, seed, names, found)
    columns = {printable(name): name for name in log.presentation or ()}
    for called, name in columns.items():
        words = [printable(text) for text in (labels or {}).get(name, ())]
        runs[called] = partial(presented, log, name, words)
    skipped = _computed(
        runs, found, lambda share: progress(reading + (1 - reading) * share)
    )
    findings = {name: found[name] for name in (*TITLES, *columns) if name in found}
    shown = {
        name: each.curves
        for name, each in findings.items()
        if isinstance(each, Presented)
    }
    if "devices" in findings and findings["devices"].grade == "caution":
        findings["populations"] = _with_device(findings.get("populations"))
    estimates = {name: found[name] for name in NAMES if name in found}
    return Diagnosis(
        summary,
        log.sessions,
        seed,
        estimates,
        found.get("by_device"),
        {name: each for name, each in findings.items() if each is not None},
        skipped,
        names,
        shown,
    )


def _some(
    log: ClickLog | Stream,
    most: int,
    seed: int,
    progress: Callable[[float], None],
    over: Over,
) -> ClickLog:
    """At most `most` sessions, drawn at random, in memory."""
    if isinstance(log, Stream):
        return log.sample(most, [seed], progress=progress, over=over)
    if log.sessions <= most:
        return log
    chosen = np.random.default_rng(seed).choice(log.sessions, most, replace=False)
    return log.take(np.sort(chosen))


def _runs(
    log: ClickLog,
    data: RankingData | None,
    seed: int,
    names: Mapping[int, str],
    found: Mapping[str, Any],
) -> dict[str, Callable[[], Any]]:
    """The computations by name, in order; later computations may read `found`."""
    features = None
    if data is not None:
        # The estimators and small models here read only numbers.
        features = data.features if data.kinds is None else data.dense()
        if log.item.max() < len(features):
            # Only of shown items: whoever takes them all needs no copy.
            log, item = log.renumbered()
            features = features if len(item) == len(features) else features[item]
        data = RankingData.trusted(features, None, np.array([0, len(features)]))
    runs: dict[str, Callable[[], Any]] = {}
    for method in (*TABULAR, *(WITH_FEATURES if data is not None else ())):
        own = features if method in (*WITH_FEATURES, "dla") else None
        # Solved to the precision of the drawing: DLA converges slowly on sparse logs.
        rough: dict[str, Any] = {}
        if method == "dla":
            rough = {"tolerance": 1e-4, "iterations": 150}
        runs[method] = partial(estimate, log, method, features=own, seed=seed, **rough)
    if log.device is not None and len(np.unique(log.device)) > 1:
        runs["by_device"] = partial(estimate, log, BEST, by="device")
        runs["devices"] = lambda: compare_devices(_needed(found, "by_device"), names)
    return runs | {
        "connectivity": lambda: connectivity(log),
        "profile": lambda: profile(log),
        "confounding": lambda: confounding(log, BEST, known=found),
        "overlap": lambda: overlap(log),
        "populations": lambda: populations(log, seed=seed),
        "neighbours": lambda: neighbours(log, data, seed=seed),
        "calibration": lambda: calibration(log, seed=seed),
        "weighting": lambda: weighting(log, _needed(found, BEST)),
    }


def _computed(
    runs: Mapping[str, Callable[[], Any]],
    found: dict[str, Any],
    progress: Callable[[float], None],
) -> dict[str, str]:
    """Runs the computations, several in parallel, and writes the results to `found`.

    Returns:
        Reasons for missing results, by name.
    """
    total, done = sum(COST.get(name, 1) for name in runs), 0
    order = sorted(runs, key=[*COST, *runs].index)
    skipped: dict[str, str] = {}
    # The computations share the cores, so each matrix product takes one.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(THREADS) as pool:
        for late in (False, True):
            asked = {
                pool.submit(runs[name]): name
                for name in order
                if (name in LATE) == late
            }
            for each in as_completed(asked):
                name = asked[each]
                try:
                    found[name] = each.result()
                except ValueError as error:
                    skipped[name] = str(error)
                done += COST.get(name, 1)
                progress(done / total)
    return {name: skipped[name] for name in runs if name in skipped}


def _needed(found: Mapping[str, Any], name: str) -> Examination:
    if name not in found:
        raise ValueError("needs an estimate of examination")
    return found[name]


def _with_device(found: Finding | None) -> Finding | None:
    """Adapts the finding on populations if devices differ.

    If devices differ, one bias tower does not fit all sessions. Clicks of a session
    also depend on each other through its device, as in two populations.
    """
    if found is None or found.grade == "unknown":
        return found
    step = "Train one relevance tower and a bias tower that reads position and device."
    if found.grade != "good":
        step = (
            "Devices differ, which may explain this. First, train a bias tower that "
            f"reads position and device. Then: {found.next_step}"
        )
    return replace(found, next_step=step)


def page(found: Diagnosis, title: str = "Click log") -> str:
    """Renders one self-contained HTML page, without scripts, fonts or network access.

    Args:
        found: The diagnosis to show.
        title: Name of the log.
    """
    from debias.diagnosis import figures
    from debias.training.figures import examination, legend

    environment = pages.environment("debias.diagnosis")
    environment.filters["number"] = _number
    environment.filters["percent"] = lambda value: f"{value:.1%}"

    def both(draw: Callable[..., str], *arguments: Any) -> list[tuple[str, str]]:
        """Draws a figure for laptops and for phones."""
        return [(name, draw(*arguments, width=w)) for name, w in pages.WIDTHS.items()]

    own, drawn, legends = found.findings, {}, {}
    nothing = np.zeros(found.summary.ctr.shape, bool)
    curves = _drawable({NAMES[name]: e for name, e in found.estimates.items()})
    flags = getattr(own.get("confounding"), "flagged", nothing)
    if curves:
        drawn["examination"] = both(examination, curves, flags, "examination")
        legends["examination"] = legend(curves)
    devices = {} if found.by_device is None else found.by_device.curves()
    parts = _drawable({label(code, found.devices): e for code, e in devices.items()})
    if parts:
        drawn["by_device"] = both(examination, parts, nothing, "device")
        legends["by_device"] = legend(parts)
    by_label = []  # columns may have any name
    for number, (column, values) in enumerate(found.shown.items()):
        if parts := _drawable(dict(values), whole=True):
            curves_of = both(examination, parts, nothing, f"label-{number}")
            by_label.append((column, curves_of, legend(parts)))
    # If a drawing would show nothing, the page says so in words.
    for name, draw, shown in (
        ("connectivity", figures.graph, "component"),
        ("profile", figures.profile, "bias"),
        ("calibration", figures.calibration, "error"),
        ("populations", figures.populations, "gain"),
    ):
        if name in own and np.isfinite(getattr(own[name], shown)[1:]).any():
            drawn[name] = both(draw, own[name])
    labels = {**NAMES, "by_device": "by device"}
    skipped: dict[str, list[str]] = {}
    for name, why in found.skipped.items():
        skipped.setdefault(why, []).append(labels.get(name, name))
    usable = {n: e for n, e in found.estimates.items() if not e.degenerate}
    known = {n: e for n, e in usable.items() if np.isfinite(e.examination[1:]).any()}
    return environment.get_template("report.html").render(
        title=printable(title),
        found=found,
        summary=found.summary,
        estimates=known,
        blind=[NAMES[name] for name in usable if name not in known],
        explained=EXPLAINED,
        degenerate={n: e for n, e in found.estimates.items() if e.degenerate},
        flagged=flags.tolist(),
        skipped=skipped,
        titles=found.titles,
        names=NAMES,
        figures=drawn,
        all_arcs=figures.ARCS,
        legends=legends,
        shown=by_label,
    )


def _drawable(
    curves: Mapping[str, Examination], whole: bool = False
) -> dict[str, Examination]:
    """Curves to draw: not degenerate, and known beyond rank 1 (or at 1, if `whole`)."""
    return {
        name: curve
        for name, curve in curves.items()
        if not curve.degenerate
        and np.isfinite(curve.examination[0 if whole else 1 :]).any()
    }


def report(
    log: ClickLog,
    data: RankingData | None = None,
    title: str = "Click log",
    **options: Any,
) -> str:
    """Diagnoses a log and renders the page; `options` are passed to `diagnose`."""
    return page(diagnose(log, data, **options), title)


def _number(value: float, digits: int = 3) -> str:
    """A number as the page shows it, with a dash for unknown values.

    >>> _number(12345), _number(0.25), _number(float("nan"))
    ('12,345', '0.250', '–')
    """
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def _json(value: Any) -> Any:
    """Converts arrays to lists, dataclasses to dicts and non-finite numbers to None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _json(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _json(value.tolist())
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
