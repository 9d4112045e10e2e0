"""Training: the learner, the compiled program, packs and their checkpoints."""

import os

# A compiled program read from the cache makes XLA warn, at length, of code generation preferences
# that are not features of any machine. Its errors still arrive as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
