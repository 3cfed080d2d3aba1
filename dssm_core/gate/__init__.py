"""The recall gate. In: what evaluation measured, and the champion; out: passed or refused, with
reasons. Read judge.py first.
"""
