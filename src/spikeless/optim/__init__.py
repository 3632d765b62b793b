"""Optimizers, weight-decay groups, learning-rate schedules and gradient transforms."""
