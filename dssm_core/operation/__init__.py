"""What happens after registration: review, promotion, publishing, refresh, lists of
users, lookalike. In: registered versions; out: aliases, files. Read promotion.py first.
"""
