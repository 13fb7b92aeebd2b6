"""Times of a log in whatever form they come: the same instants, and their order."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from debias.data.read_log import Columns, read_log
from debias.data.shown import Batch
from debias.data.times import Times

MOMENT = np.datetime64("2026-03-01T08:00:05.250000", "us")
EPOCH = 1_772_352_005  # of 08:00:05, as `date -d 2026-03-01T08:00:05Z +%s` says
TEXTS = {
    "zulu": "2026-03-01T08:00:05.25Z",
    "small": "2026-03-01t08:00:05.25z",
    "no zone": "2026-03-01 08:00:05.25",
    "ahead": "2026-03-01T13:30:05.250+05:30",
    "behind": "2026-03-01 05:00:05.250 -03:00",
    "short zone": "2026-03-01T10:00:05.25+02",
    "basic": "20260301T080005.25Z",
    "basic zone": "20260301T100005,25+0200",
    "comma": "2026-03-01T08:00:05,25Z",
    "named": "2026-03-01 08:00:05.25 UTC",
    "spaces": " 2026-03-01 08:00:05.25 ",
    "dashboard": "Mar 1, 2026 @ 08:00:05.250",
    "many digits": "2026-03-01T08:00:05.250000000000Z",
    "epoch": f"{EPOCH}.25",
    "epoch ms": f"{EPOCH}250",
    "epoch us": f"{EPOCH}250000",
    "epoch ns": f"{EPOCH}250000000",
}
KINDS = {
    "string": pa.string(),
    "large": pa.large_string(),
    "view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}


def read(values):
    array = values if isinstance(values, pa.Array) else pa.array(values)
    clock = Times()
    batch = Batch("a.csv", 0, {"timestamp": [array]}, None, {"timestamp": ("ts",)})
    return clock.read(batch), clock.notices


@pytest.mark.parametrize("form", TEXTS)
def test_text_of_every_form_is_the_same_instant(form):
    assert (read([TEXTS[form]] * 2)[0] == MOMENT).all()
    if "epoch" not in form:  # numbers and text do not mix within a column
        mixed, _ = read([TEXTS[form], None, TEXTS["zulu"], TEXTS["no zone"]])
        assert (mixed[[0, 2, 3]] == MOMENT).all() and np.isnat(mixed[1])


@pytest.mark.parametrize(
    "text, moment",
    [
        ("2026-03-01", "2026-03-01"),
        ("20260301", "2026-03-01"),
        ("20260301080005", "2026-03-01T08:00:05"),
        ("20260301T0800Z", "2026-03-01T08:00"),
        ("2026-03-01T08:00+00:00", "2026-03-01T08:00"),
        ("9999-12-31T00:00:00Z", "9999-12-31"),
        ("1999-12-31T23:59:59.123456789Z", "1999-12-31T23:59:59.123456789"),
    ],
)
def test_text_of_less_and_of_more(text, moment):
    assert read([text])[0].tolist() == [np.datetime64(moment)] or (
        read([text])[0] == np.array([moment], "datetime64[ns]")
    )


@pytest.mark.parametrize("factor, unit", [(1, ""), (10**3, "milli"), (10**6, "micro")])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_numbers_are_of_the_unit_that_their_magnitude_says(factor, unit, dtype):
    times, notices = read(np.array([EPOCH, EPOCH + 60]).astype(dtype) * dtype(factor))
    assert times.tolist() == [
        np.datetime64("2026-03-01T08:00:05", "us").item(),
        np.datetime64("2026-03-01T08:01:05", "us").item(),
    ]
    said = f"a.csv: column ts (timestamp) is read as {unit}seconds since 1970"
    assert notices == (said,)


def test_order_is_kept_to_the_fraction():
    nanoseconds = np.array([3, 1, 2]) + EPOCH * 10**9
    assert read(nanoseconds)[0].argsort().tolist() == [1, 2, 0]
    seconds = np.array([0.3, 0.1, 0.2]) + EPOCH
    assert read(seconds)[0].argsort().tolist() == [1, 2, 0]
    text = [f"2026-03-01T08:00:05.00000000{digit}Z" for digit in (3, 1, 2)]
    assert read(text)[0].argsort().tolist() == [1, 2, 0]
    assert read(pa.array([EPOCH], pa.decimal128(12, 0)))[0][0] == np.datetime64(
        EPOCH, "s"
    )


def test_numbers_of_no_calendar_stay_numbers():
    times, notices = read([5, 7, None])
    assert times[:2].tolist() == [5, 7] and np.isnan(times[2])
    assert "numbers that order the events" in notices[0]


@pytest.mark.parametrize("bad", ["soon", "2026-02-30", "08:00:05", "2026-13-01T00:00Z"])
def test_a_bad_time_says_how_to_do_without(bad):
    with pytest.raises(
        ValueError, match=r"column ts \(timestamp\) .* at row 1.*ignore the column"
    ):
        read(["2026-03-01T08:00:05Z", bad])


@pytest.mark.parametrize("kind", [*KINDS, "csv"])
def test_text_of_every_layout_within_a_log(kind, tmp_path):
    rows = {
        "session": ["s", "s", "t"],
        "query": ["q"] * 3,
        "item": ["a", "b", "a"],
        "click": [1, 0, 0],
        "ts": ["2026-03-01T08:00:05.25Z"] * 2 + ["2026-03-02T09:00:00+01:00"],
    }
    table = pa.table(rows)
    path = tmp_path / ("log.csv" if kind == "csv" else "log.parquet")
    if kind == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        table = table.set_column(4, "ts", pa.array(rows["ts"]).cast(KINDS[kind]))
        pq.write_table(table, path)
    found = read_log(path, Columns(timestamp="ts"))
    assert found.timestamps.tolist() == [
        MOMENT.item(),
        np.datetime64("2026-03-02T08:00:00", "us").item(),
    ]


def test_columns_of_a_csv_say_what_was_taken(tmp_path):
    seconds = [EPOCH + 60 * (row // 2) for row in range(6)]
    table = pa.table(
        {
            "session": [row // 2 for row in range(6)],
            "query": [0] * 6,
            "item": [row % 2 for row in range(6)],
            "click": [0, 1] * 3,
            "offset": [f"{np.datetime64(at, 's')}+00:00" for at in seconds],
            "seconds": seconds,
            "millis": [1000 * at for at in seconds],
        }
    )
    pyarrow.csv.write_csv(table, tmp_path / "times.csv")
    readings = [
        read_log(tmp_path / "times.csv", Columns(timestamp=name))
        for name in ("offset", "seconds", "millis")
    ]
    wanted = np.array(seconds[::2]).astype("datetime64[s]")
    assert all((each.timestamps == wanted).all() for each in readings)
    words = ["", "column seconds .* is read as seconds", "column millis .* as millisec"]
    for reading, word in zip(readings, words, strict=True):
        assert (reading.notices == ()) == (word == "")
        assert re.search(word, " ".join(reading.notices))
