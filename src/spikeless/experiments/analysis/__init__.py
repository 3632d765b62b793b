"""What came of a comparison, as numbers: pure functions of the outcomes of its runs."""
