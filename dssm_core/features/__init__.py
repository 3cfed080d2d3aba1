"""The coded dataset. In: train and test as Parquet; out: ids, tables and tensors of users, items
and interactions. Read interactions.py first.
"""
