"""What people look at: the page of a run, the tables of the terminal, the model cards. Made from records alone.

`page` renders a run, from one file per subject (`search`, `pretraining`, `finetuning`, `bench`), each with its
sentences, tables and plots; `tables`, `axes` and `formats` are what these share; `screen` prints; `card` writes
model cards. This folder imports `run`, `tasks` and `errors` only.
"""
