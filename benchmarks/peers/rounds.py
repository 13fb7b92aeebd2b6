"""Runs one round of a peer per input line: `python rounds.py clax_train`.

All lines are JSON objects. The first input line has "setup" and "arrays", the path of
an .npz file. The answer to the first line has "value", the result of the first round.
If the peer cannot be imported, this answer has "missing" instead, the name of the
missing module. Each further input line starts another round. Its answer has "seconds"
and "cpu", the wall-clock time and the processor time of the round.
"""

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with answers

    def answer(**found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    asked = json.loads(sys.stdin.readline())
    try:
        with np.load(asked["arrays"]) as arrays:
            run, value = import_module(sys.argv[1]).prepare(
                asked["setup"], dict(arrays)
            )
    except ModuleNotFoundError as error:
        answer(missing=error.name)
        return
    answer(value=value(run()))
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        run()
        answer(seconds=time.perf_counter() - start, cpu=time.process_time() - cpu)


if __name__ == "__main__":
    main()
