"""Documents from Arrow tables: of all their columns those that are asked for, and of nested ones the part."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from spikeless.data.corpora._records import Pick, missing_field
from spikeless.data.documents import Document, Tally
from spikeless.errors import UserError

__all__ = ["check_columns", "documents_of"]


def check_columns(schema: Any, pick: Pick, where: str) -> None:
    """Stop unless every column that is asked for is there, once, and of a kind that holds documents.

    Args:
        schema: `pyarrow.Schema`.
        pick: tells the columns.
        where: the file, for messages.

    Raises:
        UserError: one is not.
    """
    for name in pick.names:
        if schema.names.count(name) > 1:
            raise UserError(f"{where}: there are several columns {name!r}; rename them")
        kind = _field(schema, name, where)[1]
        if pick.template is None and not (_is_text(kind) or _is_list(kind)):
            raise UserError(
                f"{where}: the column {name!r} holds {kind}, not text; name one of text, messages or token ids with "
                "field=NAME"
            )


def documents_of(batch: Any, pick: Pick, where: str, first: int, tally: Tally) -> Iterator[Document | None]:
    """Stream the documents of a batch of rows.

    Args:
        batch: `pyarrow.RecordBatch` or `pyarrow.Table`.
        pick: how a document is picked from a row.
        where: the file, for messages.
        first: number of its first row.
        tally: what is repaired is counted here.

    Raises:
        UserError: a row holds no document.
    """
    columns = [_values(batch, name, where) for name in pick.names]
    for row, values in enumerate(zip(*columns, strict=True), first):
        yield pick.document(dict(zip(pick.names, values, strict=True)), f"{where}, row {row}", tally)


def _field(schema: Any, name: str, where: str) -> tuple[tuple[str, ...], Any]:
    """The path of a column, or of a part of a nested one, and its kind; a column of just this name comes first."""
    found = _below({each.name: each.type for each in schema}, name)
    if not found:
        raise missing_field(name, _names({each.name: each.type for each in schema}), where)
    return found


def _below(kinds: dict[str, Any], name: str) -> tuple[tuple[str, ...], Any] | None:
    if name in kinds:
        return (name,), kinds[name]
    for dot in (at for at, character in enumerate(name) if character == "."):
        inner = _parts(kinds.get(name[:dot]))
        if found := _below(inner, name[dot + 1 :]):
            return (name[:dot], *found[0]), found[1]
    return None


def _names(kinds: dict[str, Any]) -> Iterator[str]:
    for name, kind in kinds.items():
        yield name
        yield from (f"{name}.{inner}" for inner in _names(_parts(kind)))


def _parts(kind: Any) -> dict[str, Any]:
    from pyarrow import types

    return {each.name: each.type for each in kind} if kind is not None and types.is_struct(kind) else {}


def _values(batch: Any, name: str, where: str) -> list[Any]:
    import pyarrow
    from pyarrow import compute

    (top, *below), kind = _field(batch.schema, name, where)
    column = batch.column(top)
    if below:
        column = compute.call_function("struct_field", [column], compute.StructFieldOptions(below))
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(kind):
        return column.cast(pyarrow.large_binary()).to_pylist()  # text was not checked when it was written
    if _is_list(kind) and pyarrow.types.is_integer(kind.value_type):
        return _rows_of_ids(column, where)
    return column.to_pylist()


def _rows_of_ids(column: Any, where: str) -> list[np.ndarray | None]:
    from pyarrow import compute

    ids = compute.call_function("list_flatten", [column])
    if ids.null_count:
        raise UserError(f"{where} holds null among token ids; give whole numbers")
    lengths = compute.call_function("list_value_length", [column]).to_pylist()
    if not lengths:
        return []  # `split` makes one row of none
    rows = np.split(ids.to_numpy(zero_copy_only=False).astype(np.int64), np.cumsum([n or 0 for n in lengths])[:-1])
    return [None if length is None else row for length, row in zip(lengths, rows, strict=True)]


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    text = (types.is_string, types.is_large_string, types.is_string_view)
    raw = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(test(value) for test in text + raw)


def _is_list(kind: Any) -> bool:
    """Whether it holds lists of whole numbers or of objects."""
    from pyarrow import types

    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    inside = (types.is_integer, types.is_struct)
    return any(test(kind) for test in lists) and any(test(kind.value_type) for test in inside)
