"""All speed benchmarks of the networks: flow network, encoders, audio codec, one after the other.

    python -m benchmarks.networks                                  # one JSON line per figure, about 15 minutes
    python -m benchmarks.networks --threads 1 --processor-time     # on a busy machine
    python -m benchmarks.flow_network --only training              # one part alone; each has its own --help

Options are passed to every part. Each part runs in its own process, so that memory is measured separately.
"""

import argparse
import subprocess
import sys

from benchmarks.measure import add_timing_options

PARTS = ("flow_network", "encoders", "audio_codec")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_timing_options(parser, rounds=2)
    parser.parse_args()  # exits for --help and unknown options
    codes = [subprocess.run([sys.executable, "-m", f"benchmarks.{part}", *sys.argv[1:]]).returncode for part in PARTS]
    sys.exit(max(codes, key=abs))


if __name__ == "__main__":
    main()
