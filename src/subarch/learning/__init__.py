"""What a student learns from a teacher, in the search, pretraining and fine-tuning: losses, targets, batches.

Imports models, tasks, text, numbers and run. A new loss goes into `distill`, a new error into `signals`.
"""
