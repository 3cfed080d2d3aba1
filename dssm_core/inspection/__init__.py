"""The first hour with a log. In: files, or a config; out: a proposed config, or what a run would
find. Read proposal.py and check.py first.
"""
