"""Probes: diagnostics that need activations or products with Jacobians, one quantity per file.

They look at a model from outside, on a held batch, in evaluation mode, and leave it as it was. Like all diagnostics
they know neither our models nor our loop.
"""
