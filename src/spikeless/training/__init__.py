"""The training loop and what it stands on: run folder, checkpoints, precision, evaluation, generation."""
