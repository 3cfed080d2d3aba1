"""MLflow models. In: a run that passed its gate; out: versions and aliases.

Read versions.py first, then registration.py.
"""
