"""`spikeless list`."""

import inspect
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spikeless.config import find, names_in
from spikeless.errors import UserError, nearest
from spikeless.stabilizers import headers

__all__ = ["list_parts"]

ROOMS = {
    "recipes": "recipes",
    "models": "models",
    "stabilizers": "stabilizers",
    "diagnostics": "diagnostics",
    "probes": "diagnostics.probes",
    "checks": "preflight.checks",
    "corpora": "data.corpora",
    "tokenizers": "data.tokenizers",
    "schedules": "optim.schedules",
    "gradients": "optim.gradients",
    "inits": "init",
    "loggers": "loggers",
}


def list_parts(what: Annotated[str, typer.Argument(help=", ".join(ROOMS))]) -> None:
    """List recipes, stabilizers, or any other kind of part."""
    console = Console(highlight=False, emoji=False)
    if what not in ROOMS:
        raise UserError(f"there is no list of {what!r}; {nearest(what, ROOMS, 'list')}")
    if what == "stabilizers":
        table = Table("name", "what it does", "conflicts with")
        for header in headers():
            table.add_row(header.name, header.summary, ", ".join(header.conflicts))
    else:
        table = Table("name", "what it is")
        for name in names_in(ROOMS[what]):
            documentation = inspect.getdoc(find(ROOMS[what], name)) or ""
            table.add_row(name, escape(documentation.partition("\n")[0]))
    console.print(table)
