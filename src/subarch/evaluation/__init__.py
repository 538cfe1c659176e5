"""What a fine-tuned model is worth: scores with intervals, comparisons, confusion, mistakes, and the report of them.

May import show, learning, models, tasks and what lies below them.
"""
