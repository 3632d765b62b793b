"""`spikeless show`."""

import json

from rich.console import Console
from rich.table import Table

from spikeless.cli._options import Data, Recipe, Set, Tokenizer, With, described_run
from spikeless.config import find, to_dict
from spikeless.training.run_folder import changes_from_recipe, label_of

__all__ = ["show"]


def show(
    recipe: Recipe,
    techniques: With = None,
    assignments: Set = None,
    data: Data = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Print the resolved configuration and what differs from the plain recipe, without training."""
    console = Console(highlight=False, emoji=False, markup=False)
    run = described_run(recipe, techniques, assignments, data, tokenizer)
    console.print_json(json.dumps(to_dict(run)))
    changes = changes_from_recipe(run, find("recipes", recipe)())
    if not changes:
        console.print(f"no change against the plain {run.recipe}")
        return
    table = Table("path", "recipe", "this run", title=f"{label_of(run)} against {run.recipe}", title_justify="left")
    for change in changes:
        table.add_row(change["path"], str(change["old"]), str(change["new"]))
    console.print(table)
