"""Comparing settings. In: a config and axes. Out: trials and the best combination.

Read sweep.py first. axes.py reads the axes, proposals.py searches them, trials.py holds the results
and sweep_run.py logs them to MLflow.
"""
