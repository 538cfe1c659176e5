"""The commands whose options are a configuration's: each reads it, calls its stage, and shows what came of it.

`cli` makes the options and names the commands.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from subarch.export.config import ExportConfig
from subarch.finetuning.config import FinetuneConfig
from subarch.latency.config import BenchConfig
from subarch.planning.config import PlanConfig
from subarch.show.bench_screen import show_bench
from subarch.show.screen import (
    errors,
    progress,
    show_evaluation,
    show_export,
    show_finetuning,
    show_plan,
    show_selection,
    show_training,
)

INFEASIBLE = 3
"""Exit code where no candidate meets the limits."""

Run = Annotated[Path, typer.Argument(help="Run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")]
Remeasure = Annotated[
    bool, typer.Option("--remeasure", help="Measure latencies again, whatever is known of this machine.")
]
Option = typer.Option


def extract(
    run: Annotated[Path | None, Option(help="Run folder; default runs/ and the time.", show_default=False)] = None,
    config: Annotated[Path | None, Option(help="YAML file; options override it.", show_default=False)] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with the run in --run.")] = False,
    remeasure: Remeasure = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Find the optimal encoder for this machine."""
    import time

    from subarch.extraction.config import ExtractConfig
    from subarch.run.configuration import load
    from subarch.run.folder import RunFolder

    if resume and run is None:
        raise typer.BadParameter("--resume needs the folder to go on with, in --run")
    path = run or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    given = {key: value for key, value in options.items() if value not in (None, [], ())}
    if resume and config is None and not given:
        settings = RunFolder.open(path).config
    elif resume and config is None:
        settings = load(ExtractConfig, path / "config.yaml", given)
    else:
        settings = load(ExtractConfig, config, given)
    with progress("subarch", "extract", "--run", str(path), "--resume") as report:
        from subarch.pipeline import extract  # after the configuration: torch takes seconds to import

        selection = extract(settings, path, resume=resume, remeasure=remeasure, report=report)
    _show(selection, path, as_json)


def pretrain(
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


def finetune(
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
    from subarch.run.configuration import load

    settings = load(FinetuneConfig, config, {k: v for k, v in options.items() if v not in (None, [], ())})
    again = [word for word in sys.argv[1:] if word != "--restart"]
    with progress("subarch", *again) as report:
        from subarch.pipeline import finetune
        from subarch.run.folder import places

        encoder, place = places(model, run)
        found = finetune(encoder, settings, place, restart, report, errors.print, shlex.join(["subarch", *again]))
    if as_json:
        print(json.dumps(found))
    else:
        show_finetuning(found, place)


def evaluate(
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


def plan(as_json: AsJson = False, **options: Any) -> None:
    """Tell what a pretraining will take before it is paid for: operations, memory, tokens per second, hours."""
    from subarch.planning.plan import draw_up
    from subarch.run.configuration import load

    with errors.status("planning"):
        planned = draw_up(load(PlanConfig, None, {k: v for k, v in options.items() if v not in (None, [], ())}))
    if as_json:
        print(json.dumps(planned))
    else:
        show_plan(planned)


def select(
    run: Run,
    remeasure: Remeasure = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Select again from a finished run, for another objective, limit, machine or runtime, without training anything.

    An objective or limit given here replaces all of the run's; without any, the run's are kept.
    """
    changes = {key: value for key, value in options.items() if value is not None}
    with progress("subarch", "select", str(run)) as report:
        from subarch.pipeline import select

        selection = select(run, changes, remeasure=remeasure, report=report)
    _show(selection, run, as_json)


def export(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or run folder that holds one.", show_default=False)],
    run: Annotated[Path | None, Option(help="Run folder; default the model's, or runs/ and its name.")] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Write a model for another runtime; it is kept only if it computes what PyTorch does."""
    from subarch.run.configuration import load

    settings = load(ExportConfig, None, {k: v for k, v in options.items() if v not in (None, [], ())})
    with progress("subarch", *sys.argv[1:]) as report:
        from subarch.pipeline import export
        from subarch.run.folder import places

        encoder, place = places(model, run)
        found = export(encoder, settings, place, report)
    if as_json:
        print(json.dumps(found))
    else:
        show_export(found)


def bench(
    subjects: Annotated[
        list[str],
        typer.Argument(help="Run folders, folders of models, shapes as 4-8-1024-768, exports.", show_default=False),
    ],
    run: Annotated[
        Path | None, Option(help="Folder for bench.json and bench.html; default runs/bench- and the time.")
    ] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Time models against each other, by runtime, batch size and length."""
    import time

    from subarch.run.configuration import load

    settings = load(BenchConfig, None, {k: v for k, v in options.items() if v not in (None, [], ())})
    place = run or Path("runs") / time.strftime("bench-%Y%m%d-%H%M%S")
    with progress(*(words := ["subarch", *sys.argv[1:]])) as report:
        from subarch.show.bench_page import keep

        found = keep(subjects, settings, place, shlex.join(words), report)
    if as_json:
        print(json.dumps(found))
    else:
        show_bench(found, place)


def verify(run: Run) -> None:
    """Check the certificate of a run again, from its study, by other means than those that made it."""
    from subarch.extraction.verify import verify

    for sentence in verify(run):
        print(sentence)


def _show(selection: dict[str, Any], run: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(selection))
    else:
        show_selection(selection, run)
    if selection["winner"] is None:
        raise typer.Exit(INFEASIBLE)
