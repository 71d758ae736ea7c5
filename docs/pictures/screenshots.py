"""Take docs/images/report.png and mlflow.png of a finished demo: its report page, and MLflow's chart of both arms.

    python -m docs.pictures.screenshots REPORT COMPARISON      report.html and the folder runs/<comparison>

Needs Chromium: CHROMIUM names its program where it is not /usr/bin/chromium.
"""

import argparse
import os
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from dmma_core.storage import paths
from ray_jobs.common.reporting import IDS
from ray_jobs.common.tracking_server import local_mlflow_folder, tracking_uri_for
from ray_jobs.tools.ui import mlflow_server

IMAGES = Path(__file__).resolve().parents[1] / "images"
_PORT = 5099
_PLOT_LIMIT_MS = 120_000
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# Otherwise MLflow's assistant covers a part of the page on the first visit.
_NO_ASSISTANT = (
    "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1','true');"
    "localStorage.setItem('mlflow.assistant.panelOpen_v1','false')"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", help="report.html of `dmma compare`")
    parser.add_argument("comparison", help="folder of the comparison, runs/<comparison>")
    arguments = parser.parse_args()
    program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.goto(Path(arguments.report).resolve().as_uri())
        page.wait_for_timeout(1000)
        page.screenshot(path=IMAGES / "report.png")
        take_mlflow(browser.new_page(viewport={"width": 1600, "height": 1000}), paths.absolute(arguments.comparison))
        browser.close()


def take_mlflow(page: Page, comparison_uri: str) -> None:
    """MLflow's charts of the comparison's validation loss, each arm in its own colour."""
    experiment = paths.read_json(paths.join(comparison_uri, IDS))["experiment_id"]
    with mlflow_server(tracking_uri_for(comparison_uri), local_mlflow_folder(comparison_uri), _PORT):
        page.add_init_script(_NO_ASSISTANT)
        url = f"http://127.0.0.1:{_PORT}/#/experiments/{experiment}/runs?compareRunsMode=CHART"
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_selector("svg.main-svg", timeout=_PLOT_LIMIT_MS)
        page.locator(
            "button[data-component-id*=runnamecellrenderer]"
        ).first.click()  # shows the arms below their comparison
        page.get_by_placeholder("Search metric charts").fill("/loss")
        page.wait_for_timeout(5000)
        page.screenshot(path=IMAGES / "mlflow.png")


if __name__ == "__main__":
    main()
