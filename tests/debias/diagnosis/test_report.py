"""Tests of debias.diagnosis.report and of its figures; the page in a real browser."""

import functools
import html
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from debias.data import ClickLog, RankingData, Stream
from debias.data.summary import summarize
from debias.diagnosis import figures as drawings
from debias.diagnosis import report as reports
from debias.diagnosis.identifiability import confounding, connectivity, profile
from debias.propensity import Examination, estimate
from debias.training import figures
from tests.browser import CHROMIUM, browse, in_frame
from tests.debias.propensity.real import yandex


def simulated(sessions=1500, seed=0, device=True):
    """Four of six items, the better ones mostly on top; two devices."""
    rng = np.random.default_rng(seed)
    merit = np.linspace(1.5, 0, 6) + rng.gumbel(size=(sessions, 6))
    item = np.argsort(-merit, axis=1)[:, :4]
    p = np.linspace(0.8, 0.2, 6)[item] * [1.0, 0.7, 0.5, 0.4]
    device = rng.integers(1, 3, sessions) if device else None
    query = np.zeros(sessions, int)
    return ClickLog(query, item, rng.random(item.shape) < p, device=device)


@functools.cache
def found():
    shares = []
    diagnosis = reports.diagnose(
        simulated(),
        max_sessions=1200,
        progress=shares.append,
        devices=("phone", "laptop"),
    )
    assert shares == sorted(shares) and shares[-1] == 1.0
    return diagnosis


@functools.cache
def page():
    return reports.page(found(), "clicks <b>")


def test_features_need_neither_keras_nor_tensorflow(monkeypatch):
    for name in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)  # an import is an error
    data = RankingData(np.eye(6), None, [0, 6])
    diagnosis = reports.diagnose(simulated(400), data)
    assert set(reports.WITH_FEATURES) <= set(diagnosis.estimates)
    assert np.isfinite(diagnosis.findings["neighbours"].gain)


def test_everything_is_said():
    diagnosis, text = found(), page()
    assert not diagnosis.skipped
    assert list(diagnosis.findings) == list(reports.TITLES)
    assert set(diagnosis.estimates) == set(reports.TABULAR)
    for one in diagnosis.findings.values():
        for words in (one.verdict, one.next_step):
            assert html.escape(words).replace("&#x27;", "&#39;") in text
    assert text.index(diagnosis.headline) < text.index("<svg")  # words come first
    assert "1,200" in text and "drawn" in text and "1,500" in text
    assert "clicks &lt;b&gt;" in text and "phone" in text and "laptop" in text


def test_the_page_needs_nothing_from_elsewhere():
    text = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page())
    assert not re.search(r"https?:|<script|<link|<img|@import|url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 10
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', text))
    assert used <= set(ids)
    assert not re.search(r"#0[12]00[0-9a-f]{2}", text)  # no stand-in is left
    variables = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert variables <= set(re.findall(r"--([\w-]+):", text))


def test_the_record_is_json():
    record = json.loads(json.dumps(found().record(), allow_nan=False))
    assert record["sessions_analysed"] == 1200
    assert record["summary"]["sessions"] == 1500
    rows = record["estimates"]
    assert len(rows) == 4 * len(reports.TABULAR) + 8  # and a curve for each device
    assert rows[0]["method"] == "ctr" and rows[0]["confounded"] is True
    assert record["findings"]["profile"]["statistic"][1][0] > 3.84
    assert record["headline"] == found().headline
    assert [each for each in record["advice"] if "sessions per query" in each]


def test_the_same_seed_says_the_same():
    options = {"max_sessions": 1200, "devices": ("phone", "laptop")}
    again = reports.report(simulated(), title="clicks <b>", **options)
    assert again == page()


def test_of_a_log_on_disk_all_is_counted_and_a_sample_analysed(tmp_path):
    simulated().write(tmp_path / "log", shards=2)
    shares = []
    whole = Stream(tmp_path / "log")
    again = reports.diagnose(whole, max_sessions=100, progress=shares.append)
    assert again.sessions == 100
    np.testing.assert_equal(again.summary, found().summary)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    drawn = estimate(whole.sample(100, [0]), reports.BEST)
    np.testing.assert_equal(again.estimates[reports.BEST].columns(), drawn.columns())


def test_the_yandex_sample_is_flagged_at_rank_2():
    log = yandex()[0]
    curves = {name: estimate(log, name) for name in ("ctr", "adjacent_chain", "pbm_em")}
    flagged = {"confounding": confounding(log, reports.BEST)}
    diagnosis = reports.Diagnosis(
        summarize(log), log.sessions, 0, curves, None, flagged, {}
    )
    text = reports.page(diagnosis)
    row = re.search(r"<tr><td>2</td>.*?</tr>", text, re.DOTALL)[0]
    assert re.search(r'class="flag">0.968 <small>confounded', row)
    assert "0.748" in row and "0.698" in row
    first = re.search(r"<tr><td>1</td>.*?</tr>", text, re.DOTALL)[0]
    assert "confounded" not in first
    low, high = (
        getattr(curves["adjacent_chain"], end)[1] for end in ("lower", "upper")
    )
    assert not low <= curves["ctr"].examination[1] <= high


@pytest.mark.parametrize(
    "log, wrong",
    [
        (
            ClickLog([0] * 20, [[0, 1], [1, 0]] * 10, np.zeros((20, 2), bool)),
            "no click",
        ),
        (ClickLog([0] * 20, [[0], [1]] * 10, np.ones((20, 1), bool)), ""),
        (ClickLog([0], [[0, 1]], [[1, 0]]), "two sessions"),
    ],
    ids=["silent", "one rank", "one session"],
)
def test_what_a_poor_log_does_not_allow_is_said(log, wrong):
    diagnosis = reports.diagnose(log)
    text = reports.page(diagnosis)
    assert diagnosis.headline.startswith("This log cannot tell")
    assert "sessions per query" not in " ".join(diagnosis.advice)
    assert any(wrong in why for why in diagnosis.skipped.values()) or not wrong
    for why in diagnosis.skipped.values():
        assert why in text
    json.dumps(diagnosis.record(), allow_nan=False)


def test_a_deterministic_log_has_words_in_place_of_empty_drawings():
    rng = np.random.default_rng(0)
    query = rng.integers(0, 30, 900)
    item = query[:, None] * 4 + np.arange(4)
    click = rng.random(item.shape) < [0.6, 0.4, 0.3, 0.2]
    found = reports.diagnose(ClickLog(query, item, click))
    text = reports.page(found)
    assert "There is nothing to draw: no item was shown at several ranks" in text
    drawn = set(re.findall(r'id="(\w+)-760-', text))
    assert "profile" not in drawn and {"examination", "graph"} <= drawn
    legend = re.search(r'<ul class="legend">.*?</ul>', text, re.DOTALL)[0]
    known = [n for n, e in found.estimates.items() if np.isfinite(e.examination[1])]
    assert legend.count("</i>") == len(known)  # what knows nothing is not drawn
    json.dumps(found.record(), allow_nan=False)


def thin(sessions=500, queries=100, seed=0):
    """Hardly an item is shown twice: 5 of 60 a query."""
    rng = np.random.default_rng(seed)
    query = rng.integers(0, queries, sessions)
    merit = np.linspace(3, 0, 60) + rng.gumbel(size=(sessions, 60))
    item = np.argsort(-merit, axis=1)[:, :5]
    p = np.linspace(0.5, 0.05, 60)[item] * [1.0, 0.7, 0.5, 0.4, 0.3]
    return ClickLog(query, item + 60 * query[:, None], rng.random(item.shape) < p)


def test_what_cannot_be_trusted_is_said_and_not_drawn():
    found = reports.diagnose(thin())
    wrong = {name: e.degenerate for name, e in found.estimates.items() if e.degenerate}
    assert "dla" in wrong and "dual learning without features needs" in wrong["dla"]
    text = reports.page(found)
    legend = re.search(r'<ul class="legend">.*?</ul>', text, re.DOTALL)[0]
    head = re.search(r"<thead>.*?</thead>", text, re.DOTALL)[0]
    for name, why in wrong.items():
        assert f"Do not use {reports.NAMES[name]}: {why}." in text
        assert f">{reports.NAMES[name]}<" not in legend + head
    record = found.record()
    assert record["degenerate"] == wrong
    assert {r["method"] for r in record["estimates"] if r["degenerate"]} == set(wrong)


def test_one_wild_curve_does_not_set_the_axis():
    ranks, log = np.arange(1, 5), simulated()
    curves = {name: estimate(log, name) for name in ("ctr", "pivot", "pbm_em")}
    values = np.array([1, 900_000.0, 2, 3])
    curves["all_pairs"] = Examination(ranks, *[values] * 4, ranks, "all_pairs", "none")
    assert figures._top(list(curves.values())) == pytest.approx(3.0, abs=0.1)


def test_a_band_is_drawn_to_its_end_unless_it_is_wild():
    ranks, one = np.arange(1, 3), np.array([1.0, 0.5])
    for end, top in ((1.3, 1.05 * 1.3), (50.0, 1.05 * 1.5), (np.nan, 1.05)):
        upper = np.array([1.0, end])
        curve = Examination(ranks, one, one, one, upper, ranks, "pivot")
        assert figures._top([curve]) == pytest.approx(top)


def test_columns_of_any_name_are_drawn_apart():
    curves = {name: estimate(simulated(), "pivot") for name in ("none", "sale")}
    shown = {"profile": curves, "badge": curves}
    text = reports.page(replace(found(), shown=shown))
    for column in shown:
        assert f"<h2>Examination by {column}</h2>" in text
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_lines_that_end_together_have_one_label():
    rng = np.random.default_rng(0)
    pairs = [rng.permuted([[k, k + 1]] * 400, axis=1) for k in (0, 2)]
    item = np.concatenate(pairs, axis=1)
    log = ClickLog([0] * 400, item, rng.random(item.shape) < 0.4)
    drawn = drawings.profile(profile(log))
    assert ">rank 3-4</text>" in drawn and ">rank 3</text>" not in drawn


def test_arcs_between_neighbours_are_as_wide_as_high():
    height = {}
    for name, item in (
        ("near", [[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]]),
        ("far", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]),
    ):
        log = ClickLog([0] * 40, item * 20, [[1, 0] * 3, [0, 1] * 3] * 20)
        box = re.search(
            r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawings.graph(connectivity(log))
        )
        height[name] = float(box[2]) / float(box[1]) * 760
    assert height["near"] == pytest.approx(50 + 760 / 6, abs=1)
    assert height["far"] == pytest.approx(260, abs=1)


def test_of_many_ranks_only_the_most_precise_arcs_are_drawn():
    rng = np.random.default_rng(0)
    for ranks in (drawings.ARCS, 100):
        item = rng.permuted(np.tile(np.arange(ranks), (400, 1)), axis=1)
        log = ClickLog([0] * 400, item, rng.random(item.shape) < 0.5)
        found = connectivity(log)
        assert (found.pairs > 0).all() and np.isfinite(found.error).all()
        drawn = drawings.graph(found)
        arcs, labels = drawn.count("opacity"), drawn.count("<text")
        if ranks == drawings.ARCS:
            assert (arcs, labels) == (ranks * (ranks - 1) / 2, ranks)
        else:  # 99 arcs link 100 ranks; a label needs the room of 3.2 ranks
            assert (arcs, labels) == (99, 25)


def test_commands_in_findings_are_code():
    step = replace(found().findings["overlap"], next_step="try `debias plan --se .1`")
    text = reports.page(replace(found(), findings={"overlap": step}))
    assert "try <code>debias plan --se .1</code>" in text


def test_names_are_escaped():
    rng = np.random.default_rng(0)
    names = ("<script>alert(1)</script>", "tab\x1b[31m & co\ud800")
    item = rng.permuted(np.tile(np.arange(3), (200, 1)), axis=1)
    device = rng.integers(1, 3, 200)
    log = ClickLog(np.zeros(200, int), item, rng.random((200, 3)) < 0.4, device=device)
    found = reports.diagnose(log, devices=names)
    text = reports.page(found, "log\x00<img src=x>")
    assert "<script" not in text and "<img" not in text
    assert "&lt;script&gt;" in text and r"tab\x1b[31m &amp; co\ud800" in text
    assert text.encode("utf-8").translate(None, b"\n").decode().isprintable()
    assert r"\x1b" in json.loads(json.dumps(found.record()))["devices"]["2"]


def odd_logs():
    """Logs of shapes that people have, or that nobody should have, by name."""
    rng = np.random.default_rng(0)
    size = 120
    item = rng.permuted(np.tile(np.arange(5), (size, 1)), axis=1)[:, :4]
    click, query = rng.random(item.shape) < 0.3, np.zeros(size, int)
    one, other = np.zeros((2, *item.shape), bool)
    one[0, 0] = other[0, 3] = True
    device = rng.integers(1, 3, size)
    short = np.where(np.arange(4) < rng.integers(1, 5, size)[:, None], item, -1)
    holes = np.where((rng.random(item.shape) < 0.7) | (np.arange(4) == 0), item, -1)
    long = rng.permuted(np.tile(np.arange(60), (40, 1)), axis=1)[:, :50]
    grid = {"row": [[1, 1, 2, 2]] * size, "column": [[1, 2, 1, 2]] * size}
    numbers = np.arange(4 * size).reshape(size, 4)
    first = [True, False, False, False]

    def padded(*places):
        """Columns at these places that show nothing."""
        wide = np.insert(item, places, -1, axis=1), np.insert(click, places, 0, axis=1)
        return ClickLog(query, *wide)

    return {
        "all clicked": ClickLog(query, item, np.ones_like(click)),
        "all but one clicked": ClickLog(query, item, ~one),
        "one click": ClickLog(query, item, one),
        "one click at the last rank": ClickLog(query, item, other),
        "clicks at rank 1 alone": ClickLog(query, item, click & first),
        "no click at rank 1": ClickLog(query, item, click & ~np.array(first)),
        "one position": ClickLog(query, item[:, :1], click[:, :1]),
        "one session": ClickLog([0], [[0, 1, 2]], [[1, 0, 1]]),
        "two sessions": ClickLog([0, 0], [[0, 1], [1, 0]], [[1, 0], [0, 1]]),
        "one item": ClickLog(query, item[:, :1] * 0, click[:, :1]),
        "one item twice a list": ClickLog(query, [[0, 1, 0, 1]] * size, click),
        "devices": ClickLog(query, item, click, device=device),
        "a device of one session": ClickLog(
            query, item, click, device=np.r_[3, np.ones(size - 1, int)]
        ),
        "a silent device": ClickLog(
            query, item, click & (device == 1)[:, None], device=device
        ),
        "many devices": ClickLog(query, item, click, device=np.arange(size) + 1),
        "unknown devices": ClickLog(query, item, click, device=query),
        "a grid": ClickLog(query, item, click, **grid),
        "short lists": ClickLog(query, short, click & (short >= 0)),
        "holes": ClickLog(query, holes, click & (holes >= 0)),
        "nothing at rank 1": padded(0),
        "nothing at rank 3": padded(2),
        "nothing at the end": padded(4, 4),
        "a query each": ClickLog(np.arange(size), item, click),
        "items shown once": ClickLog(query, numbers, click),
        "long lists": ClickLog(query[:40], long, rng.random(long.shape) < 0.2),
        "large numbers": ClickLog(query + 2**31 - 5, item + 2**20, click),
    }


@pytest.mark.parametrize("name", odd_logs())
def test_odd_logs_are_diagnosed(name):
    """No traceback, no warning, valid JSON; nothing is good that is too thin to be."""
    log = odd_logs()[name]
    found = reports.diagnose(log)
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["sessions_analysed"] == len(log)
    for grade in ("populations", "neighbours"):
        assert grade in found.skipped or found.findings[grade].grade == "unknown"
    if name.startswith("one click"):
        assert found.findings["calibration"].grade == "unknown"
    if name in ("one position", "one item"):
        assert found.findings["profile"].verdict.startswith("One rank only")
    if name in ("one position", "one session", "one item", "all clicked", "one click"):
        assert found.headline.startswith("This log cannot tell")
        text = reports.page(found)
        assert found.headline in text and "nan" not in re.sub("<svg.*?</svg>", "", text)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(width, tmp_path):
    """A screenshot in both schemes; nothing is wider than the screen."""
    size = f"--window-size={width},1600"
    path = tmp_path / "report.html"
    path.write_text(page(), encoding="utf-8")
    shade = {}
    for scheme, code in (("dark", 0), ("light", 1)):
        shot = tmp_path / f"{scheme}.png"
        flags = (
            f"--blink-settings=preferredColorScheme={code}",
            f"--screenshot={shot}",
        )
        browse(path, size, *flags)
        pixels = imread(shot)[:, :, :3]
        assert pixels.shape[:2] == (1600, width)
        assert pixels.std() > 0.02  # something is drawn
        shade[scheme] = pixels[4, 4].mean()
    assert shade["dark"] < 0.15 < 0.9 < shade["light"]
    scroll, client, figures, least, table, seen, words = in_frame(
        page(),
        tmp_path,
        width,
        """(() => {
          const root = inner.documentElement;
          const heights = [...inner.querySelectorAll("svg text")]
            .map(text => text.getBoundingClientRect().height);
          return [root.scrollWidth, root.clientWidth,
            [...inner.querySelectorAll("svg")]
              .filter(each => each.clientWidth > 0).length,
            Math.min(...heights.filter(height => height > 0)),
            inner.querySelector(".scroll").scrollWidth,
            inner.querySelector(".scroll").clientWidth,
            Math.max(0, ...[...inner.querySelectorAll(".words span")]
              .map(words => words.getBoundingClientRect().right))];
        })()""",
    )
    assert scroll == client == width
    assert figures == 6  # of the two drawings of each, one
    assert least > 8  # pixels of the smallest letters
    assert table == seen or width < 1180  # all estimates at once where there is room
    assert words <= width  # sentences of a table are read without scrolling


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_long_names_fit_a_phone(tmp_path):
    long = replace(found().findings["overlap"], verdict="Device " + "x" * 200)
    text = reports.page(replace(found(), findings={"overlap": long}))
    assert in_frame(text, tmp_path, 390, "inner.documentElement.scrollWidth") == 390


def test_where_devices_differ_one_bias_tower_does_not_suffice():
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(6), (6000, 1)), axis=1)[:, :3]
    device = rng.integers(1, 3, 6000)
    theta = np.array([0.9, 0.3])[device - 1, None] ** np.arange(3)
    click = rng.random(item.shape) < np.linspace(0.9, 0.4, 6)[item] * theta
    log = ClickLog(np.zeros(6000, int), item, click, device=device)
    found = reports.diagnose(log, devices=("laptop", "phone"))
    assert found.findings["devices"].grade == "caution"
    assert "with laptop as with" in found.findings["devices"].verdict
    text = reports.page(found)
    assert "one relevance and one bias tower" not in text
    assert "bias tower that reads position and device" in text
