"""`python -m helpers.hold_lease URI PERIOD_S`: a process that holds a lease, to be killed or paused by a test.

It prints "held" or the error, then follows the lines it reads: "mark" writes a marker as jobs do, any other ends it.
"""

import sys

from dmma_core.errors import DmmaError
from dmma_core.storage import paths
from dmma_core.storage.lease import held


def main(uri: str, period_s: float) -> None:
    with held(uri, "train", period_s) as lease:
        print("held", flush=True)
        for line in sys.stdin:
            if line.strip() != "mark":
                return
            lease.require()
            paths.write_bytes(f"{uri}/MARKER.json", b"{}")
            print("marked", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], float(sys.argv[2]))
    except DmmaError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
