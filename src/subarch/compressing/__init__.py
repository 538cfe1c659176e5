"""The whole way from a teacher to a file that serves, in one run folder: composed of the stages, with none of its own.

May import the pipeline and everything below it.
"""
