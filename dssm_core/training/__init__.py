"""Training. In: the coded dataset and the sampler tables; out: trained towers and the history of
their training. Read trainer.py first.
"""
