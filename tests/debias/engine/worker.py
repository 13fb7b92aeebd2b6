"""One process of those that test_distributed starts: trains and saves the weights."""

import os
import sys
from pathlib import Path

import keras
import numpy as np

from debias import training
from debias.data import ClickLog, RankingData, Stream
from debias.data.layout import layout_of
from debias.engine import distributed
from debias.models import Mixture
from debias.models.batches import batches
from debias.presets import build
from debias.retrieval.models import dssm
from debias.retrieval.training.batches import Batches
from simulators.interactions import generate_interactions


def click_model(folder):
    """Plain compile and fit of a mixture with dropout, of a folder in batches of 25."""
    data = RankingData.read_parquet(folder / "items.parquet")
    judges = ClickLog.open(folder / "judges.parquet")
    keras.utils.set_random_seed(3)
    parts = [build(name, layout_of(judges), 3) for name in ("additive", "product")]
    model = Mixture(parts)
    model.compile("adam", jit_compile=True)
    found = batches(folder / "log", data, 25, seed=2)
    model.fit(distributed.share(found), verbose=0)
    return model


def streamed_fit(folder, die_in_round):
    """A fit of the streamed log, 2 passes of 3 windows, with a checkpoint."""
    data = RankingData.read_parquet(folder / "items.parquet")
    judges = ClickLog.open(folder / "judges.parquet")
    log = Stream(folder / "log", window=75)
    settings = training.TrainingConfig(2, 2, batch_size=25, seed=4, round=75)
    checkpoint = folder / f"product-{distributed.me()[1]}.npz"
    told = []

    def progress(sessions):
        told.append(sessions)
        if die_in_round is not None and sum(told) > 75 * die_in_round:
            os._exit(9)

    keras.utils.set_random_seed(3)
    model = build("product", layout_of(judges), 3)
    training.fit(
        model,
        log,
        data,
        validation=judges,
        config=settings,
        checkpoint=checkpoint,
        progress=progress,
    )
    return model


def retrieval_model():
    log, _ = generate_interactions(np.random.default_rng(0), users=30, items=20)
    keras.utils.set_random_seed(3)
    model = dssm(log.users.schema, log.items.schema, 8, (8,), length=5, seed=1)
    model.build()
    model.compile()
    model.fit(distributed.share(Batches(log, 16, history=5)), verbose=0)
    return model


def main(folder, names, die_in_round):
    for name in names:
        if name == "product":
            model = streamed_fit(folder, die_in_round)
        else:
            model = retrieval_model() if name == "dssm" else click_model(folder)
        process, processes = distributed.me()
        if process == 0:
            np.savez(folder / f"{name}-of-{processes}.npz", *model.get_weights())


if __name__ == "__main__":
    folder, names, dies = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    die_in_round = int(dies[0]) if dies else None
    if "DEBIAS_PROCESSES" in os.environ:
        with distributed.join(heartbeat=10).scope():
            main(folder, names, die_in_round)
    else:
        main(folder, names, die_in_round)
