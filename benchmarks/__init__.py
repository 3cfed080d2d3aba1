"""The tables of docs/benchmarks.md: `python -m benchmarks NAME` reruns one. Read `runner.py` first.

In: NAME.yaml (rows, columns, seeds) and the configs it names. Out: results/NAME.jsonl, a record a
run, and from it the table's section and picture in docs/.
"""
