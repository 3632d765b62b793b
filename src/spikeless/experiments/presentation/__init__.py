"""A comparison to be looked at: terminal, figures, page."""
