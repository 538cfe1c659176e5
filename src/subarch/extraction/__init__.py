"""Search: candidates are trained for a few steps each, in processes, and a selection is made from their errors.

May import latency, learning, models, tasks, text, search, numbers and run.

    question   what is asked: candidates, costs, objective, strategy
    loop       trains what the strategy asks for
    workbench  what one process needs to train a candidate
    estimate   the training, and its error
    workers    local processes, or those of a ray cluster
    study      finished trials, on disk
    latencies  which candidates are measured, and which predicted
    conclude   the selection, and the certificate: what the trials prove, in figures and words
    verify     checks a certificate by other means
"""
