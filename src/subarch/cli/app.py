"""The command line: parses and calls, nothing else. Everything heavy is imported inside the commands.

Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage; 3 no candidate meets the
limits (the nearest one is named); 130 stopped by Ctrl-C, with the command that goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from subarch import __version__
from subarch.cli import commands
from subarch.cli.commands import AsJson, Option, Run
from subarch.cli.options import with_options
from subarch.errors import SubarchError
from subarch.export.config import ExportConfig
from subarch.extraction.config import MEASUREMENT, QUESTION, ExtractConfig
from subarch.finetuning.config import EXAMINED, FinetuneConfig
from subarch.latency.config import BenchConfig
from subarch.planning.config import PlanConfig
from subarch.pretraining.config import PretrainConfig
from subarch.show.screen import errors, progress, show_comparison, show_space, show_tasks, show_warnings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the best encoder for your machine: the sub-architecture of a BERT-like teacher that is optimal under "
    "parameter size, latency and error.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no candidate meets the limits, 130 stopped.",
)


def main() -> None:
    """Entry point: errors raised on purpose become one message and an exit code."""
    try:
        app(prog_name="subarch")  # also as `python -m subarch`
    except SubarchError as error:
        errors.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"subarch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None: ...


@app.command()
def space(
    preset: Annotated[str, Option(help="paper, minilm, demo, or a YAML file with the four axes.")] = "minilm",
    vocabulary: Annotated[int, Option(help="Rows of the token embedding.", min=1, max=10**7)] = 30522,
    positions: Annotated[int, Option(help="Rows of the position embedding (RoBERTa: 514).", min=1, max=4096)] = 512,
    token_types: Annotated[int, Option(help="Rows of the token-type embedding (RoBERTa: 1).", min=1, max=100)] = 2,
    output: Annotated[int, Option(help="Width of the sentence embedding; 0: none is mapped to.", min=0, max=65536)] = 0,
    length: Annotated[int, Option(help="Tokens per sequence that operations are counted at.", min=1, max=4096)] = 128,
    as_json: AsJson = False,
) -> None:
    """List a search space with exact costs, in order of cost, and check AB^nC on it."""
    from subarch.numbers import abnc
    from subarch.numbers.architecture import Inputs
    from subarch.numbers.space import SearchSpace

    found, inputs = SearchSpace.load(preset), Inputs(vocabulary, positions, token_types, output)
    costs = found.costs(inputs, length)
    conditions = abnc.check(found, inputs, length)
    rows = []
    for row in range(len(costs)):
        architecture = costs.architecture(row)
        count = architecture.parameters(inputs)
        rows.append(
            {
                "architecture": str(architecture),
                "parameters": count.total,
                "embedding_parameters": count.embeddings,
                "encoder_parameters": count.effective,
                "projection_parameters": count.projection,
                "with_heads": count.with_heads,
                "operations": int(costs.operations[row]),
            }
        )
    if as_json:
        listing = {"space": found.name, **found.to_dict(), "maximum_point": str(costs.maximum_point)}
        print(json.dumps(listing | {"candidates": rows, "abnc": abnc.verdict(conditions)}))
        return
    show_space(f"{found.name}: {len(costs)} candidates, maximum point {costs.maximum_point}", rows)
    Console().print(abnc.verdict(conditions))


@app.command()
def doctor(
    seconds: Annotated[float, Option(help="Seconds of matrix products to time.", min=0.1)] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Show versions, processor, memory, disk, extras and the speed of matrix products."""
    from subarch.run.machine import examine

    with errors.status("multiplying matrices"):
        found = examine(seconds)
    if as_json:
        print(json.dumps(found))
        return
    table = Table(show_header=False, title="subarch doctor")
    for key, value in found.items():
        if key != "warnings":
            table.add_row(key, json.dumps(value, indent=1, ensure_ascii=False).strip("{}\n "))
    Console().print(table)
    show_warnings(found["warnings"])


@app.command()
def config(
    file: Annotated[Path | None, typer.Argument(help="A YAML file to check and complete.", show_default=False)] = None,
) -> None:
    """Print a commented configuration with every key, or check one and print it completed."""
    from subarch.extraction.config import ExtractConfig
    from subarch.run.configuration import dump, load

    print(dump(load(ExtractConfig, file, {} if file else {"teacher": "path/to/teacher", "corpus": ["path/to/text"]})))


@app.command()
def tasks(
    data: Annotated[Path | None, Option(help="Folder to look for them in.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks to fine-tune for: type, labels, metric; with --data also what of each is there."""
    from subarch.tasks import TASKS, described, survey

    listed = {name: described(task) for name, task in TASKS.items()}
    if data is not None:
        with errors.status("reading tasks"):
            listed = {name: listed[name] | {"found": found} for name, found in survey(data, TASKS).items()}
    if as_json:
        print(json.dumps(list(listed.values())))
        return
    show_tasks(list(listed.values()))


@app.command()
def report(run: Run) -> None:
    """Write the run's report.html again."""
    from subarch.pipeline import write_report

    print(write_report(run))


@app.command()
def demo(
    run: Annotated[Path, Option(help="Run folder; an unfinished demo in it is gone on with.")] = Path("runs/demo"),
    as_json: AsJson = False,
) -> None:
    """Extract a faster encoder of all-MiniLM-L6-v2 for the documentation of installed packages, on this machine."""
    with progress("subarch", "demo", "--run", str(run)) as report:
        from subarch.demo.demo import demonstrate

        comparison, page = demonstrate(run, report)
    if as_json:
        print(json.dumps({"comparison": comparison, "report": str(page)}))
        return
    selection = json.loads((run / "selection.json").read_text(encoding="utf-8"))
    show_comparison(comparison, selection["gap_sentence"], page)


app.command()(with_options(commands.extract, ExtractConfig))
app.command()(with_options(commands.select, ExtractConfig, [*QUESTION, *MEASUREMENT]))
app.command()(commands.verify)
app.command()(with_options(commands.pretrain, PretrainConfig))
app.command()(with_options(commands.finetune, FinetuneConfig))
app.command()(with_options(commands.evaluate, FinetuneConfig, EXAMINED))
app.command()(with_options(commands.export, ExportConfig))
app.command()(with_options(commands.bench, BenchConfig))
app.command()(with_options(commands.plan, PlanConfig))
