"""Text: files of any format -> records and clean paragraphs -> token sequences on disk -> masks and batches.

Imports `run` and `errors` only; importing it loads neither torch nor transformers.
"""
