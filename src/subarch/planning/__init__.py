"""What a pretraining takes before it is paid for: operations and memory in closed form, speed timed or assumed.

May import pretraining (whose steps it times), learning, models, text, numbers and run.
"""
