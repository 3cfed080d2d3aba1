"""Baselines, by name. See docs/extending.md to add one."""

BASELINES = {
    "hot": "dssm_core.baselines.hot:Hot",
    "recent_hot": "dssm_core.baselines.recent_hot:RecentHot",
    "itemcf": "dssm_core.baselines.itemcf:ItemCf",
    "swing": "dssm_core.baselines.swing:Swing",
    "als": "dssm_core.baselines.als:Als",
    "ease": "dssm_core.baselines.ease:Ease",
}
