"""Run folders and steps. In: a config; out: a folder a step, each with its manifest. Read table.py
first.
"""
