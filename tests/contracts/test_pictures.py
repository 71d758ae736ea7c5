"""The figure of the packages in docs/ is the one that the code draws now."""

from docs.pictures import packages


def test_the_figure_of_the_packages_is_up_to_date() -> None:
    assert packages.SVG.read_text() == packages.draw(), "Run `python -m docs.pictures.packages`."


def test_imports_go_down_only() -> None:
    order = [package for layer in packages.layers() for package in layer]
    for package in order:
        assert packages.summary_of(package) != ".", f"{package} has no docstring"
        assert all(order.index(other) > order.index(package) for other in packages.imports_of(package, order))
