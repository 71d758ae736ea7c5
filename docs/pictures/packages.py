"""Draw docs/images/packages.svg: the packages in their layers, as pyproject.toml's import rules and the code have them.

    python -m docs.pictures.packages

Every box names its package, quotes the first sentence of its docstring, and counts its modules. A package imports only
from lower layers; the dots on the right are the imports there are, read from the code.
"""

import ast
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SVG = ROOT / "docs" / "images" / "packages.svg"
_ROW, _GAP, _DOT, _NAME_WIDTH = 62, 10, 26, 830


def layers() -> list[list[str]]:
    """Packages of each layer, from the top, as the import rules list them."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in row.split("|")] for row in rows]


def files_of(package: str) -> list[Path]:
    path = ROOT / package.replace(".", "/")
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def summary_of(package: str) -> str:
    """First sentence of the package's docstring."""
    path = ROOT / package.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = " ".join((ast.get_docstring(ast.parse(source.read_text())) or "").split())
    return text.partition(". ")[0].rstrip(".") + "."


def imports_of(package: str, known: list[str]) -> set[str]:
    """Which of the `known` packages the modules of `package` import."""
    found = set()
    for file in files_of(package):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            found |= {other for other in known for name in names if f"{name}.".startswith(f"{other}.")}
    return found - {package}


def draw() -> str:
    """The picture as SVG text; the same code gives the same text."""
    rows = layers()
    packages = [package for row in rows for package in row]
    parts, y, centre = [], _GAP, {}
    for row in rows:
        height = len(row) * _ROW
        parts.append(_rect(_GAP, y, _NAME_WIDTH, height, "layer"))
        for index, package in enumerate(row):
            centre[package] = y + index * _ROW + _ROW / 2
            parts.append(_box(package, centre[package]))
        y += height + _GAP
    for column, package in enumerate(packages):
        x = _NAME_WIDTH + 3 * _GAP + column * _DOT
        parts.append(_text(x, centre[package], str(column + 1), "number"))
        users = [user for user in packages if package in imports_of(user, packages)]
        parts += [f'<circle cx="{x}" cy="{centre[user]}" r="6"/>' for user in users]
    names = [_text(_NAME_WIDTH - 14, centre[package] - 11, str(n + 1), "number") for n, package in enumerate(packages)]
    legend = "A dot in a row: this package imports the one of that number. No dot lies left of the numbers: imports go down only."
    parts += [*names, _text(_GAP, y + 14, legend, "small start")]
    style = (
        "text{font-family:system-ui,sans-serif;dominant-baseline:middle;fill:#1f2328}.name{font-size:17px;font-weight:600}"
        ".small{font-size:13px;fill:#59616a}.number{font-size:13px;text-anchor:middle;fill:#1b6f8f}"
        ".layer{fill:#f3f5f7;stroke:#d5dbe1}circle{fill:#1b6f8f}"
    )
    width = _NAME_WIDTH + 4 * _GAP + len(packages) * _DOT
    size = f'width="{width}" height="{y + 30}" viewBox="0 0 {width} {y + 30}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<title>Packages and import rules of DMMA</title>\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _box(package: str, y: float) -> str:
    count = len(files_of(package))
    modules = f"{count} modules" if count > 1 else "one module"
    return "\n".join(
        [
            _text(2 * _GAP, y - 11, package, "name"),
            _text(2 * _GAP, y + 12, f"{summary_of(package)} ({modules})", "small"),
        ]
    )


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


if __name__ == "__main__":
    SVG.parent.mkdir(parents=True, exist_ok=True)
    SVG.write_text(draw())
