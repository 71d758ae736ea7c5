"""The folder of a comparison: plan.json says which two reports it is of, `sounds` holds what the page shows.

comparison/<name>/  plan.json, table.md, table.json, report.html, sounds/<clip_id>.<ground_truth or arm>.{wav,png}
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dmma_core.errors import StorageError
from dmma_core.evaluation.report_file import Report
from dmma_core.storage import paths
from dmma_core.storage.overwriting import is_own_json, refuse_overwriting

FILES = ("table.md", "report.html", "table.json")
_PLAN, _SOUNDS = "plan.json", "sounds"
_IDENTITY = ("arm", "generation_fingerprint", "features_fingerprint")


@dataclass(frozen=True)
class ComparisonFolder:
    """Where the comparison of two reports is written. The same reports write it anew, others are refused.

    Reports are the same when they measured the same sounds with the same evaluator, wherever they lie now.
    """

    uri: str
    first: Report
    second: Report

    def require_own(self) -> None:
        """Raises StorageError where the folder holds the comparison of other reports, or files of the same names."""
        plan_uri = paths.join(self.uri, _PLAN)
        is_own = is_own_json(plan_uri, "reports")
        refuse_overwriting(self.uri, (_PLAN, *FILES, _SOUNDS), is_own, [self.first.uri, self.second.uri])
        if not is_own:
            return
        before = paths.read_json(plan_uri)
        if [entry["identity"] for entry in before["reports"]] != [entry["identity"] for entry in self._reports()]:
            found = " and ".join(entry["uri"] for entry in before["reports"])
            raise StorageError(
                f"{self.uri} holds the comparison of other reports, or of other sounds than theirs now: {found}.",
                remedy="Give another out_uri, or delete that folder.",
            )

    def begin(self) -> None:
        """Claim the folder for the two reports. Raises StorageError where it is another comparison's."""
        self.require_own()
        paths.write_json(paths.join(self.uri, _PLAN), {"reports": self._reports()})

    @property
    def sounds_uri(self) -> str:
        return paths.join(self.uri, _SOUNDS)

    def remove_other_sounds(self, names: Iterable[str]) -> None:
        """Leave only these files in `sounds`: earlier calls may have shown other clips."""
        kept = set(names)
        if not paths.exists(self.sounds_uri):
            return
        for uri in paths.list_files(self.sounds_uri):
            if uri.rpartition("/")[2] not in kept:
                paths.remove(uri)

    def _reports(self) -> list[dict[str, Any]]:
        return [
            {
                "uri": paths.absolute(report.uri),
                "identity": {
                    **{key: report.record[key] for key in _IDENTITY},
                    "evaluator_fingerprint": report.record["evaluator"]["fingerprint"],
                },
            }
            for report in (self.first, self.second)
        ]
