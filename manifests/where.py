"""A condition on the rows of a manifest: one SQL expression, evaluated by DuckDB batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import KNOWN_COLUMNS, ManifestError, batch_schema, printable

_MEMORY = "512MB"
# By class of DuckDB's syntax tree.
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a *",
    "POSITIONAL_REFERENCE": "a column by its number",
}
# They tell of the session and not of the row, though DuckDB calls them constant.
_SESSION = {"current_setting", "getvariable", "in_search_path", "txid_current"}
_ONE_ROW = "a condition sees one row at a time, and the same one every time"


class Condition:
    """A boolean SQL expression over the columns of a manifest, checked against an empty batch.

    It sees no files, no settings and no other rows, and now() stays what it was at the first batch. Times are in
    UTC. extras: the manifest's further columns; name: of the manifest, for messages.

    Raises ManifestError, naming the expression and the remedy, for anything but one such expression.
    """

    def __init__(self, expression: str, extras: pa.Schema, name: str):
        self._said = f"{name}: where {printable(expression)!r}"
        if not expression.strip():
            raise ManifestError(f"{self._said} is empty; leave it out, or write a condition such as line = 'L3'")
        self._schema = pa.schema([*KNOWN_COLUMNS, *extras])
        self._expression = f"({expression}\n)"  # the line break ends a comment
        self._connection = _locked()
        select = self._parsed()
        nodes = list(_nodes(select))
        for node in nodes:
            self._check(node)
        # Only what is asked for: DuckDB does not hold every type that a further column may have.
        used = {part.casefold() for node in nodes for part in node.get("column_names", ())}
        self._used = [column for column in self._schema.names if column.casefold() in used] or ["uri"]
        self._bind(batch_schema(extras).empty_table())

    def __call__(self, batch: pa.RecordBatch) -> pa.Array:
        """Which rows of a reader's batch are kept: true for each where the condition holds, or where it is not known
        (null) and the row has a problem, which may be why.

        Raises ManifestError if a value makes the expression fail.
        """
        try:
            held = self._run(f"SELECT {self._expression} FROM manifest", pa.Table.from_batches([batch]))
        except duckdb.Error as error:
            raise self._error(
                f"fails for a value ({_first_line(error)}); try_cast(... AS ...) is null where cast fails"
            ) from error
        return pc.coalesce(held, batch["problem_code"].is_valid())

    def close(self) -> None:
        """It is not asked again."""
        self._connection.close()

    def _run(self, query: str, rows: pa.Table) -> pa.Array:
        self._connection.register("manifest", rows.select(self._used))
        held = self._connection.sql(query).to_arrow_table().column(0).combine_chunks()
        return held.combine_chunks() if isinstance(held, pa.ChunkedArray) else held

    def _parsed(self) -> Any:
        found = _syntax(self._connection, f"SELECT {self._expression}")
        if found["error"]:
            raise self._error(f"is not one SQL expression ({found['error_message']})")
        (wanted,) = _syntax(self._connection, "SELECT (true)")["statements"]
        (statement, *others) = found["statements"]
        # What closes the bracket and goes on, with a FROM or a second column, is no expression.
        if others or _shape(statement) != _shape(wanted) or len(statement["node"]["select_list"]) != 1:
            raise self._error("is more than one SQL expression; write a condition such as line = 'L3'")
        return statement["node"]["select_list"][0]

    def _check(self, node: dict[str, Any]) -> None:
        if node["class"] in _REFUSED:
            raise self._error(f"has {_REFUSED[node['class']]}: {_ONE_ROW}; put it without")
        if node["class"] == "FUNCTION":
            why = _refusal(self._connection, node["function_name"])
            if why is not None:
                raise self._error(f"calls {node['function_name']}, {why}: {_ONE_ROW}; put it without")

    def _bind(self, empty: pa.Table) -> None:
        try:
            kind = self._run(f"SELECT {self._expression} FROM manifest", empty).type
            # The engine's own word on aggregates and the like: it has none of them here.
            self._run(f"SELECT true FROM manifest WHERE {self._expression}", empty)
        except duckdb.Error as error:
            columns = ", ".join(self._schema.names)
            raise self._error(
                f"cannot be used ({_first_line(error)}); the columns are {columns}, and text stands in single quotes"
            ) from error
        if kind != pa.bool_():
            raise self._error(f"is not true or false but of type {kind}; compare it with something")

    def _error(self, what: str) -> ManifestError:
        return ManifestError(f"{self._said} {what}")


def _locked() -> duckdb.DuckDBPyConnection:
    """A connection that reaches nothing but what is registered in it, in one transaction: now() stands still."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "memory_limit": _MEMORY,
        "threads": 1,
    }
    connection = duckdb.connect(config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    connection.begin()
    return connection


def _refusal(connection: duckdb.DuckDBPyConnection, function: str) -> str | None:
    """Why a function has no place in a condition; None if it has. Of a macro, what it is made of counts."""
    found = connection.execute(
        "SELECT DISTINCT function_type, stability, macro_definition FROM duckdb_functions() WHERE function_name = ?",
        [function.lower()],
    ).fetchall()
    if function.lower() in _SESSION:
        return "which tells of the database and not of the row"
    kinds = {kind for kind, _, _ in found}
    if "aggregate" in kinds and "scalar" not in kinds:
        return "which is of many rows"
    if "VOLATILE" in {stability for _, stability, _ in found}:
        return "which is another one every time"
    for definition in {text for _, _, text in found if text is not None}:
        for node in _nodes(_syntax(connection, f"SELECT ({definition})")):
            if node["class"] == "SUBQUERY":
                return "which is a query"
            inner = node.get("function_name", function)
            if node["class"] == "FUNCTION" and inner != function and (why := _refusal(connection, inner)) is not None:
                return why
    return None


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All expressions in a syntax tree of DuckDB's."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for inner in tree:
            yield from _nodes(inner)


def _shape(statement: dict[str, Any]) -> dict[str, Any]:
    return {**statement, "node": {key: value for key, value in statement["node"].items() if key != "select_list"}}


def _syntax(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    return json.loads(text)


def _first_line(error: duckdb.Error) -> str:
    return printable(str(error).splitlines()[0])
