"""Pictures as PNG files, for the report, the MLflow run and docs/benchmarks.md: one file for each
subject.
"""

from dssm_core.report.plots.bars import Bar, Panel, bars
from dssm_core.report.plots.data import days
from dssm_core.report.plots.items import histograms, plane, tradeoff
from dssm_core.report.plots.recall import by_hour, intervals, recall_curve
from dssm_core.report.plots.sweep import parallel, trials
from dssm_core.report.plots.training import calibration, loss_curve, sampling

__all__ = [
    "Bar",
    "Panel",
    "bars",
    "by_hour",
    "calibration",
    "days",
    "histograms",
    "intervals",
    "loss_curve",
    "parallel",
    "plane",
    "recall_curve",
    "sampling",
    "tradeoff",
    "trials",
]
