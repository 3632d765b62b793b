"""Token embedding variability of any checkpoint on disk, or on the hub."""

from spikeless.evaluation.tev.measure import EmbeddingVariability, measure
from spikeless.evaluation.tev.page import write_tev_page
from spikeless.evaluation.tev.sources import Source, find_sources

__all__ = ["EmbeddingVariability", "Source", "find_sources", "measure", "write_tev_page"]
