"""The recall gate. In: the metrics of the evaluation, and the champion. Out: passed or not, with a
sentence for each rule. Read rules.py first.
"""
