"""What happens after registration: review, promotion, publishing, refresh, lookalike. In:
registered versions; out: aliases, files. Read promotion.py first.
"""
