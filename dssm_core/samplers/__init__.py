"""Negative samplers, by name. See docs/extending.md to add one."""

SAMPLERS = {
    "active": "dssm_core.samplers.active:Active",
    "in_batch": "dssm_core.samplers.in_batch:InBatch",
    "popularity": "dssm_core.samplers.popularity:Popularity",
    "uniform": "dssm_core.samplers.uniform:Uniform",
}
