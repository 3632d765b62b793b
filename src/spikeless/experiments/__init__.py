"""Experiments: several runs that differ only in what is asked about."""
