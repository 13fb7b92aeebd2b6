"""What one process saves, another opens that has trained nothing: equal vectors."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from debias.retrieval.models import tower
from tests.debias.retrieval import worlds
from tests.debias.retrieval.models.registry import LENGTH, LOG, MODELS

ROWS = np.arange(9)
USERS = {**LOG.users.take(ROWS), "history": LOG.histories(LENGTH, ROWS)[0]}
ITEMS = LOG.items.take(ROWS)
COMPILED = ("shared", "dat")
OPENS = """
import sys
from pathlib import Path
import numpy as np
import debias

folder = Path(sys.argv[1])
sides = {}
for side in ("user", "item"):
    with np.load(folder / f"{side}.npz") as held:
        # In another order of columns than in training: they are found by name.
        sides[side] = {name: held[name] for name in reversed(held.files)}
found = {}
for path in sorted(folder.glob("*.keras")):
    name, kind = path.stem.split(".")
    model = debias.load(path)
    if kind in sides:
        assert getattr(model, "optimizer", None) is None, path
        read = {i.name: sides[kind][i.name] for i in model.inputs}
        found[f"{name}.{kind}"] = np.asarray(model(dict(reversed(read.items()))))
    else:
        found[f"{path.stem}.user"] = model.user_vectors(sides["user"])
        found[f"{path.stem}.item"] = model.item_vectors(sides["item"])
version = debias.load(folder / "root")
answer = debias.retrieval.retrieve(version, {"id": "ann"}, k=3)
np.savez(folder / "found.npz", answer=answer.items, **found)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with every model, compiled and not, every tower, and a version."""
    folder = tmp_path_factory.mktemp("saved")
    np.savez(folder / "user.npz", **USERS)
    np.savez(folder / "item.npz", **ITEMS)
    wanted = {}
    for name, make in MODELS.items():
        model = make()
        model({"user": USERS, "item": ITEMS})
        vectors = model.user_vectors(USERS), model.item_vectors(ITEMS)
        model.save(folder / f"{name}.plain.keras")
        kinds = ["plain"]
        if name in COMPILED:
            model.compile(keras.optimizers.Adam())
            model.save(folder / f"{name}.compiled.keras")
            kinds.append("compiled")
        for side, expected in zip(("user", "item"), vectors, strict=True):
            tower(getattr(model, side)).save(folder / f"{name}.{side}.keras")
            for kind in (side, *(f"{kind}.{side}" for kind in kinds)):
                wanted[f"{name}.{kind}"] = expected
    worlds.publish(folder / "root", folder)
    subprocess.run([sys.executable, "-c", OPENS, folder], check=True)
    with np.load(folder / "found.npz") as held:
        return wanted, {name: held[name] for name in held.files}


@pytest.mark.parametrize("name", MODELS)
def test_another_process_opens_models_and_towers_with_equal_vectors(saved, name):
    wanted, found = saved
    mine = [key for key in wanted if key.startswith(f"{name}.")]
    assert len(mine) == (6 if name in COMPILED else 4)
    for key in mine:
        np.testing.assert_array_equal(found[key], wanted[key], err_msg=key)


def test_another_process_opens_a_version(saved):
    assert saved[1]["answer"].tolist() == ["1-9", "1-5", "1-8"]


def test_a_tower_names_the_field_that_it_lacks():
    model = tower(MODELS["dssm"]().user)
    features = {name: USERS[name] for name in ("history", "id")}
    with pytest.raises((ValueError, KeyError), match="age"):
        model(features)
