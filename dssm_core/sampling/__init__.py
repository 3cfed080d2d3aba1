"""Negative sampling. In: the coded dataset; out: tables that candidates are drawn by, with log-Q.
Read sample_negatives.py first.
"""
