"""What is served. In: trained towers; out: embeddings, an index, and the bundle that answers
requests. Read bundle.py first.
"""
