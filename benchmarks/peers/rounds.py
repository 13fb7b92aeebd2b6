"""Runs one round of a peer per input line: `python rounds.py clax_train`.

The first input line is {"setup", "arrays"}, where "arrays" is the path of an .npz file.
Its answer is {"value"}, the result of the first round. If a module is missing in this
Python, the answer is {"missing"}, the name of this module. Each further line starts
another round, whose answer is {"seconds", "cpu"}, the wall-clock and processor time.
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
