"""Publishes a version and is killed before its n-th touch of a file: a test runs this.

python crash.py ROOT FOLDER NUMBER AT; AT 0 kills nothing and prints the touches.
"""

import os
import signal
import sys
from pathlib import Path

from tests.debias.retrieval import worlds

TOUCHES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod")


def main(root, folder, number, at):
    ready = worlds.parts(Path(folder), number)
    touches = 0

    def watch(event, arguments):
        nonlocal touches
        if event not in TOUCHES:
            return
        path = str(arguments[0])  # of a removal, a name within a folder
        if path.startswith(str(root)) or not path.startswith("/"):
            touches += 1
            if touches == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    worlds.versions.publish(root, *ready, extra={"number": number}, keep=2)
    print(touches)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
