"""Options of a command from a YAML file; what is typed wins."""

from __future__ import annotations

from typing import Any

import typer
import yaml


def from_file(context: typer.Context, file: str | None) -> str | None:
    """Callback of ``--config``: the options of a mapping become the defaults of the command, by their names.

    ``load_cpus: 16`` and ``load-cpus: 16`` are ``--load-cpus 16``; an option that may be repeated has a list.
    Raises typer.BadParameter if the file cannot be read, or has what the command does not know.
    """
    if file is None or context.resilient_parsing:
        return file
    given = _mapping(file)
    names = {option.lstrip("-").replace("-", "_"): one for one in context.command.params for option in one.opts}
    names.pop("config")
    unknown = sorted(set(given) - set(names))
    if unknown:
        known = ", ".join(sorted(names))
        raise typer.BadParameter(f"{file}: {', '.join(unknown)}: no such option; the options are {known}")
    context.default_map = {names[name].name: value for name, value in given.items()}
    return file


def _mapping(file: str) -> dict[str, Any]:
    from jobs.storage import read_bytes  # here, because --help does without
    from jobs.storage_errors import StorageAccessError

    try:
        given = yaml.safe_load(read_bytes(file))
    except FileNotFoundError as error:
        raise typer.BadParameter(f"{file}: no such file") from error
    except (OSError, StorageAccessError, ValueError, yaml.YAMLError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise typer.BadParameter(f"{file}: write options as 'name: value', one a line")
    return {str(name).replace("-", "_"): _plain(file, str(name), value) for name, value in given.items()}


def _plain(file: str, name: str, value: Any) -> Any:
    """As it would be typed: a date of YAML is text again."""
    if isinstance(value, list) and not any(isinstance(one, list | dict) for one in value):
        return [_plain(file, name, one) for one in value]
    if value is None or isinstance(value, list | dict):
        raise typer.BadParameter(f"{file}: {name}: give one value, or a list of them")
    return value if isinstance(value, bool) else str(value)
