"""The list of error codes is closed: whatever the stages say is on it."""

from __future__ import annotations

import ast
import inspect

from jobs.audit import errors, fetch
from jobs.audit.error_codes import ERROR_CODES, OTHER, known


def test_every_word_for_what_a_storage_said_is_listed() -> None:
    tree = ast.parse(inspect.getsource(errors))
    functions = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name in ("classify", "_of_status")]
    returned = [r.value for f in functions for r in ast.walk(f) if isinstance(r, ast.Return) and r.value]
    words = {c.value for value in returned for c in ast.walk(value) if isinstance(c, ast.Constant)}
    texts = {word for word in words if isinstance(word, str)}
    assert len(texts) >= 8 and texts <= set(ERROR_CODES["fetch"])


def test_every_word_for_a_failed_fetch_is_listed() -> None:
    calls = [c for c in ast.walk(ast.parse(inspect.getsource(fetch))) if isinstance(c, ast.Call)]
    raised = [c.args[0] for c in calls if isinstance(c.func, ast.Name) and c.func.id == "FetchError"]
    words = {argument.value for argument in raised if isinstance(argument, ast.Constant)}
    assert {"not_allowed", "too_many_bytes", "object_changed"} <= words <= set(ERROR_CODES["fetch"])


def test_what_is_not_listed_is_other() -> None:
    assert known("fetch", "throttled") == ("fetch", "throttled")
    assert known("decode", "throttled") == (OTHER, OTHER)  # of another stage
    assert known(None, "x" * 1000) == (OTHER, OTHER)
