"""The settings of a run. In: YAML files and overrides; out: one frozen `Config`.

Read config.py first: it has a section for each of data.py, features.py (with feature_columns.py),
training.py, serving.py, evaluation.py and resources.py. read.py reads files, merge.py lays settings
over others, rules.py refuses settings that do not go together. conditions.py parses filters of
items.
"""

from dssm_core.config.base import Member, Named, Section
from dssm_core.config.config import Config
from dssm_core.config.data import Data, DriftLimits, Validation, Weight
from dssm_core.config.evaluation import Evaluation, Gate, Rolling
from dssm_core.config.feature_columns import Feature, FeatureColumns, Normalising, Pooling
from dssm_core.config.features import Activity, Features, History, too_large
from dssm_core.config.read import parse_config, read_config
from dssm_core.config.resources import Resources
from dssm_core.config.serving import Serving
from dssm_core.config.training import Model, Train

__all__ = [
    "Activity",
    "Config",
    "Data",
    "DriftLimits",
    "Evaluation",
    "Feature",
    "FeatureColumns",
    "Features",
    "Gate",
    "History",
    "Member",
    "Model",
    "Named",
    "Normalising",
    "Pooling",
    "Resources",
    "Rolling",
    "Section",
    "Serving",
    "Train",
    "Validation",
    "Weight",
    "parse_config",
    "read_config",
    "too_large",
]
