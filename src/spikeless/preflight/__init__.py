"""The audit: what a model measures before its run, what that means, and what to change."""
