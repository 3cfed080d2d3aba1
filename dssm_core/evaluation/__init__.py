"""Offline evaluation. In: a run's bundle and its test part; out: metrics of the served index, exact
search and baselines. Read evaluate.py first.
"""
