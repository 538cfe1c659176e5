"""Full training of one architecture, by distillation or masked LM: batches, losses, the loop, what it leaves."""
