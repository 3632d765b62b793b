"""Whether the runs of a comparison ever came to the learning rates that they are named by."""

import contextlib

from spikeless.config import names_in, paths
from spikeless.errors import UserError
from spikeless.experiments.analysis.comparison import About
from spikeless.optim.schedules import largest_factor
from spikeless.recipes import compose

__all__ = ["REACHED", "unreached"]

REACHED = 0.99
"""A schedule comes to its peak if it comes so near."""


def unreached(about: About) -> str | None:
    """A sentence about a comparison whose learning rates were never reached; None if they were, or if nothing tells.

    Comparisons of 0.1.0 have no record of it. Where the command line made them, recipe, settings and steps tell it.
    """
    share = about.reached
    if share is None and about.command and about.recipe in names_in("recipes"):
        known = set(paths(compose(about.recipe)))
        settings = [each for each in about.settings if each.partition("=")[0].strip() in known]
        with contextlib.suppress(UserError):  # a setting of another version
            share = largest_factor(compose(about.recipe, (), settings).schedule, about.steps)
    if share is None or share >= REACHED:
        return None
    return (
        f"no run came to the learning rate that it is named by: the warm-up is longer than {about.steps} steps, the "
        f"highest rate was {share:.2g} of it; where a rate is called best or stable, {share:.2g} of it is"
    )
