"""Command-line options made from a configuration, so that an option and a key of a YAML file are one thing.

>>> app.command()(with_options(extract, ExtractConfig))        # `--learning-rate` is the key learning_rate
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel


def with_options(
    function: Callable[..., None], kind: type[BaseModel], keys: Iterable[str] | None = None
) -> Callable[..., None]:
    """Give a command one option per key of a configuration, or of those named, typed and described as it is there.

    The command gets what was given, and None for the rest, in place of its `**options`.
    """
    parameters = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "options"]
    for key in kind.model_fields if keys is None else keys:
        field = kind.model_fields[key]
        default = field.get_default()
        known = "" if field.is_required() or default is None else f" [{default}]"
        option = typer.Option(help=f"{field.description}.{known}", show_default=False)
        annotation = Annotated[option_type(field.annotation), option]  # type: ignore[valid-type]
        parameters.append(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def command(**values: Any) -> None:
        function(**values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def option_type(annotation: Any) -> Any:
    """The plain type of a configuration field; its limits are checked by the configuration itself."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return option_type(arguments[0])
    if origin is Literal:
        return str
    if origin is list:
        return list[option_type(arguments[0])]  # type: ignore[misc]
    if origin in (Union, UnionType):
        return option_type(next(argument for argument in arguments if argument is not type(None)))
    return annotation
