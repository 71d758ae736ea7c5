from pathlib import Path

import pytest

from dmma_core.evaluation.embed import TinyTaggerNetwork
from dmma_core.evaluation.evaluate import evaluate, open_generated
from dmma_core.evaluation.evaluator_config import EvaluatorConfig
from dmma_core.evaluation.report_file import Report
from helpers.generated import GeneratedPair


@pytest.fixture(scope="session")
def measured_pair(generated_pair: GeneratedPair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Report]:
    """Reports of both arms of `generated_pair`. Read-only: tests change copies."""
    folder = tmp_path_factory.mktemp("measured-pair")
    reports = []
    for uri in (generated_pair.baseline, generated_pair.depth):
        name = str(folder / f"{Path(uri).name}.json")
        *_, report = evaluate(open_generated(uri), EvaluatorConfig(), TinyTaggerNetwork(), name)
        reports.append(report)
    return reports[0], reports[1]
