"""Negative samplers, by name. See docs/extending.md to add one."""

SAMPLERS = {
    "active": "dssm_core.samplers.active:Active",
    "exposed": "dssm_core.samplers.exposed:Exposed",
    "frequency_bands": "dssm_core.samplers.frequency_bands:FrequencyBands",
    "hard": "dssm_core.samplers.hard:Hard",
    "in_batch": "dssm_core.samplers.in_batch:InBatch",
    "mixed": "dssm_core.samplers.mixed:Mixed",
    "popularity": "dssm_core.samplers.popularity:Popularity",
    "ralm": "dssm_core.samplers.ralm:Ralm",
    "rank_suppressed": "dssm_core.samplers.rank_suppressed:RankSuppressed",
    "uniform": "dssm_core.samplers.uniform:Uniform",
    "unseen": "dssm_core.samplers.unseen:Unseen",
}
