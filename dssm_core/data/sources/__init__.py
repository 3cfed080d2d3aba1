"""Sources of click logs: one member a file, listed in dssm_core/families.py. See docs/extending.md
to add one.
"""
