"""The log: ingested, validated, split by time. In: files of a source; out: Parquet of train, test
and quarantine. Read ingest.py first.
"""
