"""What is served. In: trained towers; out: embeddings, an index, the bundle that answers. Read
bundle.py first.
"""
