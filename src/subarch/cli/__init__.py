"""The command line: parses what the user typed, calls a stage, shows its result. It may import everything.

`app` is the entry point, `commands` has one function per command, `options` what commands have in common.
"""
