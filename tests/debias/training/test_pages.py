"""Pages of results: what they show, escaped, and readable by everybody."""

import re
from html.parser import HTMLParser

import pytest

from debias.training.evaluation import Evaluation
from debias.training.pages import MARK, Figure, page

EVIL = "<img src=x onerror=alert(1)>\x1b"


def made():
    drawings = [("wide", "<svg></svg>"), ("narrow", "<svg></svg>")]
    figure = Figure("Examination", "What it shows.", drawings, {"raw": "ink"})
    rows = [{"model_name": EVIL, "loss": 0.123456, "none": None}]
    return page("log.csv", "naive", ["a sentence"], [("Passes", rows)], [figure])


def test_tables_figures_and_words_are_there_and_escaped():
    text = made()
    assert "<h2>Passes</h2>" in text and "model name" in text and "0.12346" in text
    assert "<h1>naive</h1>" in text and "a sentence" in text
    assert "<img" not in text and "\x1b" not in text
    assert text.count("<svg>") == 2 and 'aria-label="What it shows."' in text
    assert MARK in text.encode()[:1000]  # by which a page of ours is known


def test_numbers_are_explained_and_options_are_code():
    rows = [{"metric": "ndcg@5", "value": 0.5}, {"metric": "odd", "value": 1}]
    text = page("log.csv", "naive", ["try --epochs 8, not `2`"], [("Ranking", rows)])
    assert "try <code>--epochs</code> 8, not <code>2</code>" in text
    assert "<dt>ndcg</dt><dd>Discounted gain" in text and "<dt>odd" not in text
    assert "<details" not in page("log.csv", "naive", [], [("Ranking", rows[1:])])


def test_nothing_is_loaded_from_elsewhere():
    tags = "".join(re.findall("<[^>]*>", made()))
    assert not re.search(r"(src|href)=|@import|url\((?!#)", tags)


class Outline(HTMLParser):
    """Levels of the headings, and whether the language is said."""

    def __init__(self, text):
        super().__init__()
        self.levels, self.language = [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if re.fullmatch(r"h\d", tag):
            self.levels.append(int(tag[1]))
        if tag == "html":
            self.language = dict(attrs).get("lang")


def test_headings_go_down_one_by_one():
    outline = Outline(made())
    assert outline.language == "en" and outline.levels == [1, 2, 2]


def luminance(color):
    value = color.removeprefix("#")
    value = "".join(2 * c for c in value) if len(value) == 3 else value
    parts = [int(value[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [
        p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """WCAG 2.1: (lighter + .05) / (darker + .05)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_black_on_white():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_on_its_background(dark):
    blocks = re.findall(r":root \{(.*?)\}", made(), re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[1 if dark else 0]))
    for ink in ("ink", "soft", "good", "caution", "bad", "accent"):
        for ground in ("page", "paper"):
            assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
    for name, color in colors.items():  # lines of a drawing
        if name.startswith("series"):
            assert contrast(color, colors["paper"]) >= 3, name


def test_a_result_writes_itself(tmp_path):
    found = Evaluation("naive", "all sessions", 9, {"perplexity": 1.5})
    found.report(tmp_path / "page.html", "log.csv")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "naive was evaluated on 9 sessions (all sessions)." in text
    assert '<td class="text">perplexity</td><td>1.5</td>' in text and "log.csv" in text


@pytest.mark.parametrize(
    "note, estimates, said",
    [
        (None, [], ""),
        ("the log has none", [], "are not estimated: the log has none, and no examin"),
        (
            "the log has none",
            [{"ranking": "x", "value": 1.0}],
            "only by the given examination: the ",
        ),
    ],
)
def test_what_clicks_are_estimated_by_is_said(note, estimates, said):
    found = Evaluation("naive", "all", 9, {}, [], estimates, 9, note).words()
    assert said in found and ("new ranking" in found) == bool(said)
