"""Regenerate own_statistics.json: python tests/golden/regenerate.py

Run it only after an intended change of these functions, and only while the tests against the reference data pass: the
statistics detect changes, not errors.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.own_statistics import FILE, STATISTICS, own_outputs, statistics


def main() -> None:
    """Write one line per output."""
    lines = [f"  {json.dumps(name)}: {json.dumps(statistics(value))}" for name, value in own_outputs().items()]
    lines.insert(0, f'  "statistics": {json.dumps(STATISTICS)}')
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{FILE}: {len(lines) - 1} outputs")


if __name__ == "__main__":
    main()
