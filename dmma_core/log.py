"""Logging, progress bars, and readable sizes and URIs.

Logging is set up once by the command line; libraries only call `logging.getLogger(__name__)`.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
_PLAIN_INTERVAL_S = 5.0


def setup_logging(verbose: bool = False) -> None:
    """Send log records to stderr, one line each. Third-party records below WARNING are dropped."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    for name in ("dmma_core", "ray_jobs", "__main__"):  # the last is the job of `python -m ray_jobs.<job>`
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)


def size_text(num_bytes: int) -> str:
    """A size in decimal units: 7.3 GB, 12 MB, 4.2 kB."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.1f} kB"


def without_password(uri: str) -> str:
    """`uri` without `user:password@` and query, which may hold secrets, so that it can be shown and stored."""
    scheme, separator, rest = uri.partition("://")
    if not separator or rest.startswith("/"):  # a path, as after sqlite://
        return uri
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


class Progress:
    """A progress bar on a terminal; otherwise a plain log line every five seconds. Use as a context manager."""

    def __init__(self, label: str, total: int, unit: str = "clip") -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._started_s = self._last_line_s = time.monotonic()
        self._log = logging.getLogger("dmma_core.progress")
        self._bar = (
            tqdm(total=total, desc=label, unit=unit, dynamic_ncols=True, leave=True) if sys.stderr.isatty() else None
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif exc[0] is None and self._done:
            self._line(time.monotonic())

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` finished units; `note` is a short text shown after the bar, for example the loss."""
        self._done += count
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now_s = time.monotonic()
        if now_s - self._last_line_s >= _PLAIN_INTERVAL_S and self._done < self._total:
            self._last_line_s = now_s
            self._line(now_s, note)

    def _line(self, now_s: float, note: str = "") -> None:
        elapsed_s = max(now_s - self._started_s, 1e-9)
        rate = self._done / elapsed_s
        left_s = (self._total - self._done) / rate if rate else float("nan")
        pace = f"{rate:.2f}/s" if rate >= 0.1 else f"{1 / rate:.0f} s each" if rate else "-"
        text = f"{self._label}: {self._done}/{self._total} {self._unit}, {pace}, {left_s:.0f} s left"
        self._log.info("%s", f"{text}, {note}" if note else text)


def progress(items: Iterable[Item], label: str, total: int, unit: str = "clip") -> Iterator[Item]:
    """Iterate over `items` while showing a `Progress`."""
    with Progress(label, total, unit) as shown:
        for item in items:
            yield item
            shown.advance()
