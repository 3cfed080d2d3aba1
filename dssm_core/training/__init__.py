"""Training. In: the coded dataset and sampler tables; out: trained towers and their history. Read
trainer.py first.
"""
