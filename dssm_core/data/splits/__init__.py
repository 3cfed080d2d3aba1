"""Splits of a log into train and test: one member a file, listed in dssm_core/families.py. See
docs/extending.md to add one.
"""
