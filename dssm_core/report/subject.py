"""The run that a report is about, opened: what several sections read is read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dssm_core.evaluation.answers import ServedRun
from dssm_core.evaluation.queries import EvaluationData, read_evaluation_data
from dssm_core.report.diagnostics.queries import QuerySample, sample_queries
from dssm_core.report.parts import Absent
from dssm_core.runs.gate_report import GateMetrics, GateReport
from dssm_core.runs.layout import GATE_FILE
from dssm_core.runs.run import Run


@dataclass(frozen=True)
class Subject:
    """A run and the folder of its gate, which may not be finished.

    given: the run's data, where it is read already.
    """

    opened: ServedRun
    gate: Path
    given: EvaluationData | None = None

    @property
    def run(self) -> Run:
        """The run."""
        return self.opened.run

    @cached_property
    def report(self) -> GateReport | None:
        """The report of the gate; None before the gate has run."""
        file = self.gate / GATE_FILE
        return GateReport.model_validate_json(file.read_bytes()) if file.is_file() else None

    @property
    def metrics(self) -> GateMetrics:
        """What the gate measured; Absent before the gate has run."""
        if self.report is None:
            raise Absent("the gate has not run yet")
        return self.report.metrics

    @property
    def metric(self) -> str:
        """The name of the figure that the gate judges."""
        return self.run.config.gate.metric

    @cached_property
    def data(self) -> EvaluationData:
        """The training set and the test set in codes."""
        return self.given or read_evaluation_data(self.run)

    @cached_property
    def sample(self) -> QuerySample:
        """Some warm queries with their vectors; Absent without warm queries."""
        if not len(self.data.warm.codes):
            raise Absent("no test user is in the training set")
        return sample_queries(self.opened, self.data.warm)
