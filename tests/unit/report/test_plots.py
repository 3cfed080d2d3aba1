"""The pictures are drawn, from full and from nearly empty data."""

import numpy as np
import pytest

from dssm_core.report import plots
from dssm_core.report.plots.items import frontier


def is_png(file):
    return file.read_bytes().startswith(b"\x89PNG")


def test_recall_curve(tmp_path):
    curves = {
        "served": (np.linspace(0, 0.6, 200), np.full(200, 0.01)),
        "hot": (np.linspace(0, 0.3, 50), np.zeros(50)),
    }
    plots.recall_curve(curves, tmp_path / "a.png")
    assert is_png(tmp_path / "a.png")


@pytest.mark.parametrize("points", [0, 1, 2])
def test_loss_curve(tmp_path, points):
    history = [{"step": 1, "train_loss": 2.0}, {"step": 2, "valid_recall@200": 0.3}]
    plots.loss_curve(history[:points], tmp_path / "a.png")
    assert is_png(tmp_path / "a.png")


def test_sampling(tmp_path):
    plots.sampling(np.array([0.5, 0.5, 0.0]), np.array([0.9, 0.1, 0.0]), tmp_path / "a.png")
    assert is_png(tmp_path / "a.png")


def test_bars(tmp_path):
    marked, plain = plots.Bar("a", 0.5, 0.01, 0.52, True), plots.Bar("b", 0.2, 0.0, None, False)
    published = plots.Bar("c", None, 0.0, 0.9, False)
    plots.bars(
        [
            plots.Panel("one", "recall", [marked, plain, published]),
            plots.Panel("two", "recall", [plain]),
        ],
        tmp_path / "a.png",
    )
    assert is_png(tmp_path / "a.png")


def test_recall_by_hour_is_drawn_with_gaps(tmp_path):
    plots.by_hour(
        {"served": [0.9, None, 0.8], "daily": [0.9, 0.5, 0.1], "recent_hot": [0.8, None, 0.7]},
        2,
        tmp_path / "rolling.png",
    )
    assert is_png(tmp_path / "rolling.png")


def test_the_frontier_holds_points_that_no_faster_point_beats():
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (2.0, 0.7), (4.0, 0.9), (5.0, 1.0)]
    assert frontier(points) == [(1.0, 0.5), (2.0, 0.7), (3.0, 0.9), (5.0, 1.0)]
