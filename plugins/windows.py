"""Registers the sliding window of days with Airflow's scheduler."""

from airflow.plugins_manager import AirflowPlugin

from tasks.windows import TrailingDaysMapper, TrailingDaysWindow


class Windows(AirflowPlugin):
    """Partition mapper and window of the Dag dssm_training."""

    name = "dssm_windows"
    partition_mappers = (TrailingDaysMapper,)
    windows = (TrailingDaysWindow,)
