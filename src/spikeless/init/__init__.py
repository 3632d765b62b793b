"""Initial weights: a scheme says which standard deviation each role gets, and every parameter has its own seed."""

from spikeless.init._draw import InitConfig, Scheme, StdTarget, TargetStd, initialise, standard_deviations

__all__ = ["InitConfig", "Scheme", "StdTarget", "TargetStd", "initialise", "standard_deviations"]
