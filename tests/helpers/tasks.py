"""Functions that tests run as Ray tasks, in a module that workers can import."""

import os
import time

from dmma_core.errors import StorageError


def square(number: int, slow: int = -1, fatal: int = -1, wrong: int = -1) -> int:
    """The square of `number`; the other arguments name the numbers that take a second, end the process, or fail."""
    if number == fatal:
        os._exit(1)
    if number == wrong:
        raise StorageError(f"There is no {number}.")
    time.sleep(1.0 if number == slow else 0.0)
    return number * number
