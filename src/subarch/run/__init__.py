"""The run folder: typed records, atomic files and content hashes, what a stage read, configurations, the machine.

Imports errors only, and neither torch nor NumPy: every other folder may use it.
"""
