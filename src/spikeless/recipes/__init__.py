"""Recipes: functions that return a whole run, one file each. The folder is the registry.

Each is also an attribute of this package: `recipes.gpt2_124m()`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spikeless import stabilizers
from spikeless.config import find, get_at, named_modules, names_in, not_ours, parse_calls, parts_of, paths, set_at
from spikeless.errors import UserError
from spikeless.recipes._start import begin_from, check_start
from spikeless.run import RunConfig
from spikeless.training.build import check_buildable
from spikeless.training.run_folder import RunFolder

__all__ = ["adapt", "compose", "stored"]

RECORDS = {"recipe": "name another recipe instead", "techniques": "use --with", "init_from": "use --init-from"}


def compose(
    recipe: str,
    techniques: Sequence[str] = (),
    assignments: Sequence[str] = (),
    init_from: str | None = None,
    begun: Path | None = None,
) -> RunConfig:
    """A recipe with techniques and `path=value` assignments, as the command line gives them; see `adapt`.

    With `init_from` the model and the tokenizer are those of a Hugging Face folder; if the run folder `begun` has
    recorded them, they are read from there.
    """
    base = find("recipes", recipe)()
    if init_from is None:
        return adapt(base, techniques, assignments)
    base = begin_from(base, init_from, begun)
    run = adapt(base, techniques, assignments)
    check_start(base, run)
    return run


def stored(folder: Path, techniques: Sequence[str] = (), assignments: Sequence[str] = ()) -> RunConfig:
    """The run that a run folder holds, with more techniques and assignments; see `adapt`.

    A technique that it was begun with, and a part that it has, change nothing. Code from outside the package is
    imported only if it, or what brings it, is named here.

    Raises:
        UserError: as for `adapt`; no run, or one with a part from elsewhere that is not named.
    """
    trusted = named_modules(techniques, assignments)
    run = RunFolder(folder).asked(trusted)
    for each in (*run.metrics.diagnostics, *run.metrics.loggers):
        if ":" in each and each.partition(":")[0] not in trusted:
            raise UserError(not_ours(each))
    begun = {call.name: str(call) for each in run.techniques for call in parse_calls(each)}
    calls = [call for each in techniques for call in parse_calls(each)]
    held = {f"{type(each).__module__}:{type(each).__qualname__}" for each in parts_of(run)}
    known = {*begun, *begun.values(), *held, *run.metrics.diagnostics, *run.metrics.loggers}
    new = [str(call) for call in calls if str(call) not in known]
    return adapt(run, new, assignments)


def adapt(run: RunConfig, techniques: Sequence[str] = (), assignments: Sequence[str] = ()) -> RunConfig:
    """A run with techniques and `path=value` assignments.

    Assignments come first, so that a technique sees the sizes that were asked for; those to a part that a
    technique brings come after it. Their order does not matter: a whole part is set before what is inside it.

    Raises:
        UserError: unknown recipe, technique or path, a wrong value, or two that set the same thing.
    """
    known = set(paths(run))
    assignments = sorted(assignments, key=lambda each: each.partition("=")[0].count("."))
    for each in assignments:
        if (path := each.partition("=")[0].strip()) in RECORDS:
            raise UserError(f"--set {each}: {path!r} is a record; {RECORDS[path]}")
    early = [each for each in assignments if each.partition("=")[0].strip() in known]
    for assignment in early:
        run = set_at(run, assignment)
    treated = stabilizers.apply(run, techniques)
    for assignment in early:
        path = assignment.partition("=")[0].strip()
        if path in set(paths(treated)) and get_at(treated, path) != get_at(run, path):
            raise UserError(
                f"--set {assignment} and {', '.join(treated.techniques)} both set {path}; choose one of them"
            )
    for assignment in assignments:
        if assignment not in early:
            treated = set_at(treated, assignment)
    check_buildable(treated)
    return treated


if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[[], RunConfig]: ...


globals().update({name: find("recipes", name) for name in names_in("recipes")})  # the function hides its file
