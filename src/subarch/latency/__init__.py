"""Latency on this machine: the clock, candidates of a search measured or predicted, and the benchmark of whole models.

May import exporting (whose files it times), models, text, numbers and run.
"""
