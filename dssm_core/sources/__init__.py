"""Sources of click logs, by name. See docs/extending.md to add one."""

SOURCES = {
    "delimited": "dssm_core.sources.delimited:Delimited",
    "globo": "dssm_core.sources.globo:Globo",
    "landed": "dssm_core.sources.landed:LandedDays",
    "movielens": "dssm_core.sources.movielens:MovieLens",
    "parquet": "dssm_core.sources.parquet:Parquet",
    "sequences": "dssm_core.sources.sequences:Sequences",
    "synthetic": "dssm_core.sources.synthetic:Synthetic",
    "tencent": "dssm_core.sources.tencent:Tencent",
}
