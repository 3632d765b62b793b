"""Hugging Face folders: read one into a model, write one from a model."""
