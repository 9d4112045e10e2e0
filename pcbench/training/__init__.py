"""Training: the learner, the compiled program, packs and their checkpoints."""
