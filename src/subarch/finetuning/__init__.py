"""From an encoder to a model of a task: plain fine-tuning, and Agora, which grows the training data around mistakes.

May import evaluation, show, learning, models, tasks and what lies below them.
"""
