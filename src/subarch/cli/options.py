"""What commands have in common: options made from a configuration, progress, and a result for people or for programs.

@app.command()
@options_of(ExportConfig)                     # one option per key: `--max-length` is the key max_length
@answering                                    # --json, a progress bar, Ctrl-C
def export(model: Path, given: dict[str, Any], report: Progress) -> Answer: ...
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import rich_click as click
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from subarch.run.record import Row

STOPPED = 130
"""Exit code after Ctrl-C."""

errors = Console(stderr=True)

GROUPS = {
    "What to compress": "architecture teacher start_from prompt corpus text_column streaming space",
    "Vectors": "endpoint model out dimensions max_words limit",
    "Requests": "texts_per_request concurrency requests_per_minute timeout price key_variable",
    "Task": "task data first second choices label id group kind parts rows",
    "Objective and limits": "objective faster max_latency_ms max_latency_ratio max_parameters max_megabytes keep error",
    "Search": "strategy delta epsilon heads repeats audit reuse learn_from",
    "Losses": "loss loss_embedding loss_similarities loss_margins loss_outputs loss_relations loss_hidden "
    "loss_logits loss_mlm temperature top_k",
    "Agora": "agora points encoder masked_lm neighbours re_pair any_teacher many_sets",
    "Training": "minutes hours steps epochs learning_rate batch_size batch_tokens micro_tokens initialise max_length "
    "warm_up weight_decay dropout clip optimizer freeze_embeddings maskings targets heldout evaluations patience seed "
    "seeds vocabulary_size",
    "Export": "head quantize storage calibration min_cosine max_drop beside",
    "Latency": "cost runtime latency_batch batch latency_length length length_from latency_threads rounds processes "
    "vocabulary positions",
    "Where it runs": "workers threads_per_worker threads trial_minutes ray database precision compile device gpus "
    "peak_tflops utilisation",
}
"""The panels of --help with the keys of each, in the order in which they are shown."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Answer:
    """What a command came to.

    Attributes:
        data: printed with --json: a record, or plain lists and dicts.
        show: prints it for people.
        code: the exit code.
    """

    data: Any
    show: Callable[[], object]
    code: int = 0


class Progress:
    """The function that stages call with what they are doing, how much of it is done, and of how much (0: unknown).

    Where bars cannot move (no terminal: CI, nohup), each stage is a line with the seconds so far, when it begins.
    `resume` is the command that goes on after Ctrl-C; a command may set it.
    """

    def __init__(self, bars: Bars, resume: list[str], in_lines: bool = False) -> None:
        self._bars, self.resume, self._in_lines = bars, resume, in_lines
        self._tasks: dict[str, Any] = {}
        self._start = time.monotonic()

    def __call__(self, what: str, done: float, total: float) -> None:
        stage = what.split(",")[0]
        if self._in_lines and stage not in self._tasks:
            seconds = time.monotonic() - self._start
            errors.print(f"{seconds:7.1f} s  {what}", markup=False, highlight=False, soft_wrap=True)
        if stage not in self._tasks:
            for task in self._tasks.values():
                self._bars.stop_task(task)
            self._tasks[stage] = self._bars.add_task(what, total=total or None)
        self._bars.update(self._tasks[stage], description=what, completed=done, total=total or None)


@contextmanager
def progress(shown: bool = True) -> Iterator[Progress]:
    """Progress on standard error: bars, or lines. Ctrl-C exits with code 130 and prints the command that goes on."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    moves = errors.is_terminal
    with Bars(*columns, console=errors, disable=not (shown and moves)) as bars:
        resume = ["subarch", *(word for word in sys.argv[1:] if word != "--restart")]
        report = Progress(bars, resume, in_lines=shown and not moves)
        try:
            yield report
        except KeyboardInterrupt:
            bars.stop()
            if shown:
                message = f"Stopped. Finished work is kept; continue with: {shlex.join(report.resume)}"
                errors.print(message, markup=False, highlight=False, soft_wrap=True)
            sys.exit(STOPPED)


def answering(function: Callable[..., Answer]) -> Callable[..., None]:
    """Run a command under a progress bar, which it gets as `report`, and print its answer; adds --json.

    Of several processes (torchrun) only the first shows anything.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
    @functools.wraps(function)
    def command(as_json: bool, **values: Any) -> None:
        first = os.environ.get("RANK", "0") == "0"
        with progress(first) as report:
            answer = function(report=report, **values)
        if first and as_json:
            data = answer.data
            print(json.dumps(data.to_dict() if isinstance(data, Row) else data))
        elif first:
            answer.show()
        if answer.code:
            sys.exit(answer.code)

    return command


def options_of(kind: type[BaseModel], keys: Iterable[str] | None = None) -> Callable[[Function], Function]:
    """Add one option for each key of a configuration, or for those named, with its type, description and default.

    The command gets the options that were given as `given`, by key: a file that an option does not override counts.
    """
    chosen = list(kind.model_fields if keys is None else keys)

    def add(function: Function) -> Function:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            given = {key: value for key in chosen if (value := values.pop(key)) not in (None, ())}
            given = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
            return function(given=given, **values)

        for panel, key in reversed(in_groups(chosen)):
            click.option(*_names(kind, key), **_describe(kind, key), panel=panel)(command)
        return command  # type: ignore[return-value]

    return add


def in_groups(keys: list[str]) -> list[tuple[str, str]]:
    """(panel, key) in the order of `GROUPS`."""
    return [(panel, key) for panel, named in GROUPS.items() for key in named.split() if key in keys]


def _names(kind: type[BaseModel], key: str) -> list[str]:
    flag = f"--{key.replace('_', '-')}"
    return [f"{flag}/--no-{flag[2:]}" if _type(kind.model_fields[key].annotation) is bool else flag, key]


def _describe(kind: type[BaseModel], key: str) -> Mapping[str, Any]:
    """The arguments of `click.option` for a key; its limits are checked by the configuration itself."""
    field = kind.model_fields[key]
    default, of = field.get_default(), _type(field.annotation)
    is_list = isinstance(of, list)
    of = of[0] if is_list else of
    known = not field.is_required() and default is not None and default != []
    shown = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
    return {
        "type": click.Path(path_type=Path) if of is Path else click.Choice(of) if isinstance(of, tuple) else of,
        "multiple": is_list,
        "default": None,
        "help": f"{field.description}{' [repeatable]' if is_list else ''}{f' [default: {shown}]' if known else ''}",
    }


def _type(annotation: Any) -> Any:
    """The plain type of a field: a class, a tuple of choices, or a list of one of these."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return arguments
    if origin is list:
        return [_type(arguments[0])]
    if origin in (Union, UnionType):
        return _type(next(argument for argument in arguments if argument is not type(None)))
    return annotation
