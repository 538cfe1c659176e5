"""The command line: parses and calls, nothing else. Everything heavy is imported inside the commands.

Exit codes: 0 done; 1 refused or failed, with the reason on standard error; 2 wrong usage; 3 no candidate meets the
limits (the nearest one is named); 130 stopped by Ctrl-C, with the command that goes on.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from subarch import __version__
from subarch.errors import SubarchError
from subarch.extraction.config import MEASUREMENT, QUESTION, ExtractConfig
from subarch.finetuning.config import EXAMINED, FinetuneConfig
from subarch.options import with_options
from subarch.planning.config import PlanConfig
from subarch.pretraining.config import PretrainConfig
from subarch.screen import (
    errors,
    progress,
    show_comparison,
    show_evaluation,
    show_finetuning,
    show_plan,
    show_selection,
    show_space,
    show_tasks,
    show_training,
    show_warnings,
)

INFEASIBLE = 3

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find the best encoder for your machine: the sub-architecture of a BERT-like teacher that is optimal under "
    "parameter size, latency and error.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no candidate meets the limits, 130 stopped.",
)

Run = Annotated[Path, typer.Argument(help="Run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")]
Option = typer.Option


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
    from subarch import abnc
    from subarch.architecture import Inputs
    from subarch.space import SearchSpace

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
    from subarch.doctor import examine

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
    from subarch.extraction.config import dump, load

    print(dump(load(file, {} if file else {"teacher": "path/to/teacher", "corpus": ["path/to/text"]})))


def _extract(
    run: Annotated[Path | None, Option(help="Run folder; default runs/ and the time.", show_default=False)] = None,
    config: Annotated[Path | None, Option(help="YAML file; options override it.", show_default=False)] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with the run in --run.")] = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Find the optimal encoder for this machine."""
    import time

    from subarch.extraction.config import load
    from subarch.runs import RunFolder

    if resume and run is None:
        raise typer.BadParameter("--resume needs the folder to go on with, in --run")
    path = run or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    given = {key: value for key, value in options.items() if value not in (None, [], ())}
    if resume and config is None and not given:
        settings = RunFolder.open(path).config
    elif resume and config is None:
        settings = load(path / "config.yaml", given)
    else:
        settings = load(config, given)
    with progress("subarch", "extract", "--run", str(path), "--resume") as report:
        from subarch.pipeline import extract  # after the configuration: torch takes seconds to import

        selection = extract(settings, path, resume=resume, report=report)
    _show(selection, path, as_json)


def _pretrain(
    run: Run,
    config: Annotated[Path | None, Option(help="YAML file; options override it.", show_default=False)] = None,
    restart: Annotated[bool, Option("--restart", help="Begin anew, without the checkpoints that are there.")] = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Train the architecture that extraction selected in a run folder, or a given one; the same again goes on.

    In the folder of an extraction, what is not given is taken from there. On many devices: torchrun -m subarch pretrain
    """
    first = os.environ.get("RANK", "0") == "0"  # under torchrun the others train and say nothing
    given = {key: value for key, value in options.items() if value not in (None, [], ())}
    again = [word for word in sys.argv[1:] if word != "--restart"]
    with progress("subarch", *again, shown=first) as report:
        from subarch.pipeline import pretrain
        from subarch.pretraining.pretrain import configure

        settings = configure(run, config, given)
        trained = pretrain(run, settings, restart, report)
    if first and as_json:
        print(json.dumps(trained))
    elif first:
        show_training(trained, run)


def _finetune(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or run folder that holds one.", show_default=False)],
    run: Annotated[Path | None, Option(help="Run folder; default the model's, or runs/ and its name.")] = None,
    config: Annotated[Path | None, Option(help="YAML file; options override it.", show_default=False)] = None,
    restart: Annotated[bool, Option("--restart", help="Begin anew, without the fits that are there.")] = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Fine-tune a model for a task and score it on data that nothing else saw; the same command again goes on.

    Options that may be given several times span the settings that are tried.
    """
    from subarch.configuration import load

    settings = load(FinetuneConfig, config, {k: v for k, v in options.items() if v not in (None, [], ())})
    again = [word for word in sys.argv[1:] if word != "--restart"]
    with progress("subarch", *again) as report:
        from subarch.finetuning.finetune import finetune, places

        place = places(model, run)
        found = finetune(place[0], settings, place[1], restart, report)
    if as_json:
        print(json.dumps(found))
    else:
        show_finetuning(found, place[1] / "finetuned" / settings.task)


def _evaluate(
    models: Annotated[list[Path], typer.Argument(help="Fine-tuned model; several: of one fine-tuning, one per seed.")],
    part: Annotated[str, Option(help="Part of the task; dev, held-out: as data was divided.")] = "validation",
    against: Annotated[list[Path] | None, Option(help="Model to compare with; as many as there are models.")] = None,
    submission: Annotated[Path | None, Option(help="Archive to write for the benchmark's server.")] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Score a fine-tuned model with intervals, compare it with another; without labels it predicts only.

    Without --task, task and data are those that the model was fine-tuned with.
    """
    with progress(*(words := ["subarch", *sys.argv[1:]])) as report:
        from subarch.evaluation.evaluate import evaluate

        given = {key: value for key, value in options.items() if value not in (None, [], ())}
        beside: dict[str, Any] = {"against": against or [], "submission": submission, "report": report}
        found = evaluate(models, given, part, command=shlex.join(words), **beside)
    if as_json:
        print(json.dumps(found))
    else:
        show_evaluation(found, models[0])


def _plan(as_json: AsJson = False, **options: Any) -> None:
    """Tell what a pretraining will take before it is paid for: operations, memory, tokens per second, hours."""
    from subarch.configuration import load
    from subarch.planning.plan import draw_up

    with errors.status("planning"):
        planned = draw_up(load(PlanConfig, None, {k: v for k, v in options.items() if v not in (None, [], ())}))
    if as_json:
        print(json.dumps(planned))
    else:
        show_plan(planned)


def _select(
    run: Run,
    remeasure: Annotated[bool, Option("--remeasure", help="Measure latencies again, on this machine.")] = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Select again from a finished run, for another objective, limit or machine, without training anything.

    An objective or limit given here replaces all of the run's; without any, the run's are kept.
    """
    changes = {key: value for key, value in options.items() if value is not None}
    with progress("subarch", "select", str(run)) as report:
        from subarch.pipeline import select

        selection = select(run, changes, remeasure=remeasure, report=report)
    _show(selection, run, as_json)


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
        from subarch.demo import demonstrate

        comparison, page = demonstrate(run, report)
    if as_json:
        print(json.dumps({"comparison": comparison, "report": str(page)}))
        return
    show_comparison(comparison, page)


def _show(selection: dict[str, Any], run: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(selection))
    else:
        show_selection(selection, run)
    if selection["winner"] is None:
        raise typer.Exit(INFEASIBLE)


app.command()(with_options(_extract, ExtractConfig))
app.command()(with_options(_select, ExtractConfig, [*QUESTION, *MEASUREMENT]))
app.command()(with_options(_pretrain, PretrainConfig))
app.command()(with_options(_finetune, FinetuneConfig))
app.command()(with_options(_evaluate, FinetuneConfig, EXAMINED))
app.command()(with_options(_plan, PlanConfig))
