"""MLflow runs. In: a run and its numbers; out: an MLflow run that shows them.

Read runs.py first, then points.py. `mlflow` is imported only when a function needs it.
"""
