"""`debias import` at a prompt."""

from typer.testing import CliRunner

from debias.__main__ import app
from debias.commands.importing import MADE, MAKES
from debias.data.events import COUNTED

EVENTS = """\
event,session,item,position,timestamp
impression,1,a,1,10
impression,1,b,2,10
click,1,b,,12
click,1,c,,13
cart,1,b,,14
"""


def test_every_number_is_explained(tmp_path):
    (tmp_path / "events.csv").write_text(EVENTS)
    command = ["import", tmp_path / "events.csv", "-o", tmp_path / "log.parquet"]
    command += ["-c", "target=cart"]
    done = CliRunner().invoke(app, [str(each) for each in command])
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "clicked 1 shown items with at least one click" in said
    assert "cart 1 further actions on shown items" in said
    assert f"by key {MAKES['key']}" in said
    for name in COUNTED:
        assert f"{name} {int(name == 'orphans')} " in said
    assert "orphans 1 actions on an item that was not shown, left out" in said
    assert set(MADE) >= {"lists", "impressions", "clicks", "clicked", "first_position"}
