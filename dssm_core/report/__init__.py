"""What people look at. In: a finished run; out: plots, one HTML page, MLflow's artifacts. Read
page.py first.
"""
