"""One JSON line a figure: name, value, unit, bar, ok."""

import json


def figure(name: str, value: float, unit: str, bar: float | None = None, at_most: bool = False) -> bool:
    """Print the figure; `ok` says whether it reaches its bar (or stays below it). True where there is no bar."""
    ok = None if bar is None else value <= bar if at_most else value >= bar
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "ok": ok}), flush=True)
    return ok is not False
