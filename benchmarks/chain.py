"""The demo as a benchmark: seconds of each step, throughput, memory, how far both arms learned, and the sounds' levels.

python -m benchmarks.chain [--work FOLDER] [key=value …]      settings as for `dmma demo`
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from benchmarks.measure import print_figure
from dmma_core.evaluation.measure import RATE_HZ
from dmma_core.storage import media

MIB = 1 << 20
_SAMPLE_S = 0.5
_FULL_SCALE = 0.999


class PeakMemory:
    """Largest resident set of a process and its descendants, sampled twice per second."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Stop sampling; returns MiB."""
        self._stop.set()
        self._thread.join()
        return self.peak_bytes / MIB

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                try:
                    self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue


def main() -> int:
    """Run the demo once in a new folder; the exit code is 0 where every bar was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default=None, help="folder for the demo's output (default: a temporary one)")
    parser.add_argument("settings", nargs="*", help="key=value settings of `dmma demo`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dmma-chain-") as temporary:
        work = Path(arguments.work or temporary) / "demo-output"
        command = [sys.executable, "-m", "ray_jobs.demo", f"work_uri={work}", *arguments.settings]
        process = subprocess.Popen(command, stdout=sys.stderr)
        memory = PeakMemory(process.pid)
        if process.wait() != 0:
            print("The demo failed; its output is above.", file=sys.stderr)
            return 1
        return 0 if print_report(work, memory.stop()) else 1


def print_report(work: Path, peak_mib: float) -> bool:
    """Print all figures of a finished demo below `work`; whether every bar was met."""
    name = next(path.name for path in (work / "runs").iterdir())
    seconds = json.loads((work / "comparison" / name / "seconds.json").read_text())
    features = json.loads((work / "features" / name / "FEATURES.json").read_text())
    ok = print_figure("demo", sum(seconds.values()), "s", 480, at_most=True)
    for step, value in seconds.items():
        print_figure(f"{step}_seconds", value, "s")
    for step in ("render", "extract"):
        if step in seconds:
            print_figure(f"{step}_rate", features["num_rows"] / seconds[step], "clips/s")
    rates = {}
    for arm in ("baseline", "depth"):
        points = [json.loads(line) for line in (work / "runs" / name / arm / "metrics.jsonl").read_text().splitlines()]
        rates[arm] = median(point["train/samples_per_s"] for point in points if "train/samples_per_s" in point)
        losses = [point["val/loss"] for point in points if "val/loss" in point]
        print_figure(f"train_rate_{arm}", rates[arm], "samples/s")
        ok &= print_figure(f"validation_loss_drop_{arm}", 1 - losses[-1] / losses[0], "of the first", 0.3)
        ok &= report_levels(json.loads((work / "reports" / name / f"{arm}.json").read_text())["rows"], arm)
    print_figure("train_rate_depth_over_baseline", rates["depth"] / rates["baseline"], "ratio")
    return print_figure("largest_process", peak_mib, "MiB", 4096, at_most=True) and ok


def report_levels(rows: list[dict[str, Any]], arm: str) -> bool:
    """Print peak and level of an arm's sounds against the true ones; both are read from where its report says."""
    peaks: dict[str, list[float]] = {"generated": [], "true": []}
    differences_db = []
    for row in rows:
        cuts = {"generated": (row["sound_uri"], 0.0), "true": (row["source_uri"], row["start_s"])}
        rms = {}
        for side, (uri, start_s) in cuts.items():
            audio_A = media.decode_audio(uri, RATE_HZ, start_s, row["duration_s"])
            peaks[side].append(float(np.abs(audio_A).max()))
            rms[side] = max(float(np.sqrt(np.square(audio_A).mean())), 1e-6)
        differences_db.append(20 * np.log10(rms["generated"] / rms["true"]))
    for side, values in peaks.items():
        print_figure(f"peak_{side}_median_{arm}", median(values), "of full scale")
        print_figure(f"peak_{side}_largest_{arm}", max(values), "of full scale")
    print_figure(f"level_difference_median_{arm}", median(differences_db), "dB")
    print_figure(f"level_difference_magnitude_median_{arm}", median(map(abs, differences_db)), "dB")
    clipped = {side: sum(peak >= _FULL_SCALE for peak in values) / len(values) for side, values in peaks.items()}
    print_figure(f"clips_at_full_scale_true_{arm}", clipped["true"], "of the clips")
    return print_figure(
        f"clips_at_full_scale_generated_{arm}", clipped["generated"], "of the clips", clipped["true"], at_most=True
    )


if __name__ == "__main__":
    raise SystemExit(main())
