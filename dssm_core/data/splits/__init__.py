"""Splits of a log into train and test: one member a file, listed in dssm_core/families.py.
docs/extending.md shows how to add one.
"""
