"""Units that change no output: a class is followed from its makers to its readers, and cut in rounds (lossless.py)."""
