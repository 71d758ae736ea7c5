"""Every figure of the networks' speed: flow network, encoders, audio codec, one after the other.

    python -m benchmarks.networks                                  # one JSON line a figure, about a quarter of an hour
    python -m benchmarks.networks --threads 1 --processor-time     # on a busy machine
    python -m benchmarks.flow_network --only training              # one part alone; each has its own --help

Options are passed on to every part. Each runs in a process of its own, so that none measures another's memory.
"""

import argparse
import subprocess
import sys

from benchmarks.measure import timing_options

PARTS = ("flow_network", "encoders", "audio_codec")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing_options(parser, rounds=2)
    parser.parse_args()  # --help and misspelt options end here
    codes = [subprocess.run([sys.executable, "-m", f"benchmarks.{part}", *sys.argv[1:]]).returncode for part in PARTS]
    sys.exit(max(codes, key=abs))


if __name__ == "__main__":
    main()
