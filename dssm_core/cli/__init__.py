"""The command `dssm`. In: arguments; out: runs, tables on the screen, JSON. Read main.py first."""
