"""Vectors of a corpus, asked of an endpoint once and kept: what `subarch record` does.

May import text and run.
"""
