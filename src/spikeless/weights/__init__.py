"""Safetensors on disk, read without trusting what their headers claim."""
