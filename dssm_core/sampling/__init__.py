"""Negative sampling. In: the validated and split data; out: the coded dataset, and tables that
candidates are drawn from, with their probabilities. Read sample_negatives.py first.
"""
