"""stop_training.py N ARGUMENTS...: se-train, which gets SIGTERM as its state is saved for the N-th time.

So it stops at the same step on a slow machine and on a fast one. Under torchrun, which starts every rank, torchrun gets the signal.
"""

import os
import signal
import sys

from setk.cli.train import main
from setk.training.resume import States

saves, arguments = int(sys.argv[1]), sys.argv[2:]
write = States.write


def write_and_stop(states, content):
    global saves
    write(states, content)
    saves -= 1
    if saves == 0:
        os.kill(os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid(), signal.SIGTERM)


States.write = write_and_stop
sys.argv = ["se-train", *arguments]
main()
