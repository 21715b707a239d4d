"""A rank that does what its arguments say, one for each rank, and needs no PyTorch."""

import os
import signal
import sys
import time

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


def main() -> None:
    what = sys.argv[1 + int(os.environ["RANK"])]
    if what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif what == "exit 0 after a signal":
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    elif what == "wait for a signal":
        for one in SIGNALS:
            signal.signal(one, lambda number, _: os._exit(128 + number))
    elif what == "ignores SIGHUP":
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        time.sleep(0.5)
        sys.exit()
    elif what == "wait":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what.startswith("exit"):
        sys.exit(int(what.split()[1]))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    time.sleep(120)


if __name__ == "__main__":
    main()
