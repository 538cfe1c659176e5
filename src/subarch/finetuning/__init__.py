"""From an encoder to a model of a task: plain fine-tuning, and Agora, which grows the data around its mistakes."""
