"""The two towers. In: the tensors of `features`; out: user and item embeddings. Read two_tower.py
first.
"""
