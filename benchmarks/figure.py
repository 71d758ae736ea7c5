"""One JSON line a figure: name, value, unit, bar, ok. `bar` is "<=480" or ">=0.97"; without a bar, ok is null."""

import json


def figure(name: str, value: float, unit: str, bar: str = "") -> bool:
    """Print the figure; returns whether it meets its bar (True where there is none)."""
    ok = None
    if bar:
        limit = float(bar[2:])
        ok = value <= limit if bar.startswith("<=") else value >= limit
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "bar": bar or None, "ok": ok}), flush=True)
    return ok is not False
