"""The entry point: the groups of commands, exit codes, and what happens to errors.

Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage; 3 no candidate meets the
limits (the nearest one is named); 130 stopped by Ctrl-C, with the command that continues.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import rich_click as click

from subarch import __version__
from subarch.cli import commands
from subarch.cli.options import errors
from subarch.errors import SubarchError
from subarch.show import screen


class InOrder(click.RichGroup):
    """Lists the commands as they were added, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=InOrder,
    help="Find the best encoder for your machine: the sub-architecture of a BERT-like teacher that is optimal under "
    "parameter size, latency and error.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no candidate meets the limits, 130 stopped.",
)
@click.version_option(__version__, message="subarch %(version)s")
@click.rich_config({"max_width": 120})
def app() -> None: ...


for command in (
    commands.compress,
    commands.extract,
    commands.pretrain,
    commands.finetune,
    commands.export,
    commands.pair,
    commands.select,
    commands.bench,
    commands.evaluate,
    commands.verify,
    commands.report,
    commands.push,
    commands.plan,
    commands.record,
    commands.augment,
    commands.space,
    commands.tasks,
    commands.config,
    commands.doctor,
    commands.demo,
):
    app.add_command(command)


def main() -> None:
    """Run the command line; errors that were raised on purpose become one message and exit code 1, warnings a line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 must not cost a finished result
    with warnings.catch_warnings():
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
        try:
            app(prog_name="subarch")  # also as `python -m subarch`
        except SubarchError as error:
            errors.print(f"[bold red]{type(error).__name__}[/]: ", end="")
            errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
            sys.exit(1)


def _show_warning(
    as_usual: Callable[..., None], message: Warning | str, category: type[Warning], filename: str, *about: object
) -> None:
    """What we warn of is for users, who have no use for the line of code that says it; others are shown as usual."""
    if category is UserWarning and Path(filename).is_relative_to(Path(__file__).parents[1]):
        screen.show_warnings([str(message)])
    else:
        as_usual(message, category, filename, *about)
