"""Offline evaluation. In: a run up to build_index and its test set. Out: metrics of the served
index, exact search and baselines. Read evaluate.py first.
"""
