"""`dssm`, the command line: a file a group of commands. Read `main.py` first.

In: a YAML config, a run's folder or the name of a registered model. Out: results on stdout,
progress on stderr. Modules that load heavy libraries are imported by the command that needs them,
so that `dssm --help` is fast.
"""
