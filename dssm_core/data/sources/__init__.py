"""Sources of click logs: one file a source, listed in dssm_core/families.py. docs/extending.md
shows how to add one.
"""
