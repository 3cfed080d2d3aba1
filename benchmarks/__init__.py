"""The tables of docs/benchmarks.md: `python -m benchmarks NAME` reruns one. Read `tables.py` first.

In: NAME.yaml (rows, columns, seeds) and the configs it names. Out: results/NAME.jsonl with a record
a run, and from it the table's section and picture in docs/. tables.py reads a table, jobs.py makes
its runs, measuring.py runs them, records.py keeps what they measure, pages.py writes the page.
baselines.py, index.py, libraries.py (with other_libraries.py), sampling.py and scale.py are
measurements of their own.
"""
