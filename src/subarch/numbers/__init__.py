"""Architectures, spaces, objectives and the choice among candidates: exact arithmetic over columns, NumPy only.

May import run.files and errors.
"""
