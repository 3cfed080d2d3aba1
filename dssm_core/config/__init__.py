"""The settings of a run. In: YAML files and overrides; out: one frozen `Config`. Read config.py
first.
"""

from dssm_core.config.config import (
    Config,
    DriftLimits,
    Feature,
    FeatureColumns,
    Features,
    Gate,
    History,
    Member,
    Named,
    Normalising,
    Pooling,
    Rolling,
    Section,
    Train,
    parse_config,
    read_config,
    too_large,
)

__all__ = [
    "Config",
    "DriftLimits",
    "Feature",
    "FeatureColumns",
    "Features",
    "Gate",
    "History",
    "Member",
    "Named",
    "Normalising",
    "Pooling",
    "Rolling",
    "Section",
    "Train",
    "parse_config",
    "read_config",
    "too_large",
]
