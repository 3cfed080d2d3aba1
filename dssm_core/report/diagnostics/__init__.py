"""Bounded looks at a finished run for its report: each function reads the run's files, samples what
is large, and returns small arrays.
"""
