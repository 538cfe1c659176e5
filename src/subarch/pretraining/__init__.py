"""Full training of one architecture, by distillation, masked LM or both; the stage is `pretrain.train`.

Imports learning, models, text, numbers and run, the model card from show and the timing of models from latency.
"""
