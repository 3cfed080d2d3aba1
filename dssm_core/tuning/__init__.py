"""Comparing settings. In: a config and axes; out: trials and the best of them. Read sweep.py first."""
