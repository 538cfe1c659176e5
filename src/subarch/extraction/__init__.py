"""Search: candidates are trained for a few steps each, in processes, and the answer is drawn from their errors."""
