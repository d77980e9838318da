"""Rows as a data set in memory, in the form of Arrow: about as many bytes as in a file, and never all as objects."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

BATCH_ROWS = 1000
TURN = [{"role": "string", "content": "string"}]


def in_batches(rows: Iterator[dict[str, Any]], columns: dict[str, Any]) -> "Dataset":
    """A `datasets.Dataset` of these rows, made a thousand at a time: they are never all there as Python objects.

    columns: "string", or TURN for turns. Where a turn holds more than role and content, such as a call, turns are held
    as JSON: a table of calls would give each of them the arguments of all others. Then there is a column tools, too, if
    any row has such.
    """
    import pyarrow
    from datasets import Dataset, Features, Json, List, Value, fingerprint

    plain = {
        name: Value(kind) if kind == "string" else [{key: Value("string") for key in kind[0]}]
        for name, kind in columns.items()
    }
    of_turns = [name for name, kind in columns.items() if kind is TURN]
    rich = Features({**plain, **{name: List(Json()) for name in (*of_turns, "tools")}})
    schema, is_rich, tools = Features(plain).arrow_schema, False, False

    def in_json(batch: list[dict[str, Any]]) -> pyarrow.Table:
        return Dataset.from_dict({name: [row.get(name) for row in batch] for name in rich}, features=rich).data.table

    tables = [pyarrow.Table.from_pylist([], schema=schema)]
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        tools = tools or any(row.get("tools") for row in batch)
        if not is_rich and (tools or any(len(turn) > 2 for row in batch for name in of_turns for turn in row[name])):
            is_rich, tables = True, [in_json(table.to_pylist()) for table in tables]
        tables.append(in_json(batch) if is_rich else pyarrow.Table.from_pylist(batch, schema=schema))
    # To name it by its content, as the library does by itself, takes several copies of it.
    dataset = Dataset(pyarrow.concat_tables(tables), fingerprint=fingerprint.generate_random_fingerprint())
    return dataset.remove_columns("tools") if is_rich and not tools else dataset
