"""Numbers of a finished checkpoint: perplexity, bits per byte, LAMBADA, TEV."""
