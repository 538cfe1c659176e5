"""Encoders: teachers and their sentence folders, students and what they inherit, heads of tasks, fast matrix products.

May import numbers, text, tasks, run and errors: nothing here knows how a model is searched for, trained or served.
"""
