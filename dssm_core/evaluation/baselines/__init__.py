"""Baselines: one file for each member, listed in dssm_core/families.py.

docs/extending.md says how to add one.
"""
