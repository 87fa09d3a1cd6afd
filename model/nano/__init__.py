"""nano, the small built-in model: its checkpoint, and the program that made it.

Nothing here is imported when the model is used: a chat reads `checkpoint/` as it reads any other checkpoint.
"""
