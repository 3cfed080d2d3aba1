"""The last outcome of a Dag run as its note."""

from airflow.plugins_manager import AirflowPlugin

from tasks import outcomes


class OutcomeNote(AirflowPlugin):
    """Listens for Dag runs that end."""

    name = "dssm_outcome_note"
    listeners = (outcomes,)
