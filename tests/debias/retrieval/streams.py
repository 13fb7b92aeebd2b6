"""A small retrieval model that is published, and a stream of events behind it."""

import os
import signal
import sys
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.csv

from debias.retrieval.models import dssm
from debias.retrieval.serving.update import update
from debias.retrieval.training.learner import TrainingConfig, learn, new_learner
from simulators.interactions import generate_interactions

LENGTH = 4
LOG, _ = generate_interactions(np.random.default_rng(0), 29, 20, events=6)
BUILD = partial(dssm, dim=4, hidden=(8,), length=LENGTH, seed=1)
CONFIG = TrainingConfig(LENGTH, 16, 0.01, 0.01, seed=3)
RAW_ITEMS = {"id": [str(row) for row in range(26)], "genre": ["0"] * 26}


def trained():
    learner = new_learner(BUILD, LOG, CONFIG)
    learn(learner)
    return learner


def stream(path, rows=48, start=0):
    """Events of the users 0 to 31 and the items 0 to 25; those from 29 and 20 are new.

    Of 48 rows, three users and four items are.
    """
    rng = np.random.default_rng(7)
    user, item = rng.integers(0, 32, 96), rng.integers(0, 26, 96)
    table = pa.table({"user": user, "item": item, "time": np.arange(96) + 100})
    pyarrow.csv.write_csv(table.slice(start, rows), path)
    return path


TOUCHES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod")


def follow(root, path, most, at=0):
    """Applies a stream, eagerly; is killed before its `at`-th touch of a file of ROOT.

    For a process of its own. At 0 it is not killed, and writes the touches to a file.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    touches = 0

    def watch(event, arguments):
        nonlocal touches
        if event in TOUCHES and str(root) in str(arguments[0]):
            touches += 1
            if touches == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    for _ in update(root, path, BUILD, CONFIG, max_events=most):
        pass
    count = touches
    path.with_suffix(".touches").write_text(str(count))
