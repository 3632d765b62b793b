"""Safetensors on disk, read without trusting what their headers claim."""

from spikeless.weights.folder import open_weights
from spikeless.weights.header import TensorInfo
from spikeless.weights.reader import Weights

__all__ = ["TensorInfo", "Weights", "open_weights"]
