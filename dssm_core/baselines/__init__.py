"""Baselines, by name. See docs/extending.md to add one."""

BASELINES = {
    "hot": "dssm_core.baselines.hot:Hot",
    "recent_hot": "dssm_core.baselines.recent_hot:RecentHot",
}
