"""The command line: every option reaches the configuration, JSON is pure, exit codes are as documented."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import report_fixture
import subarch
from subarch.cli import app as cli
from subarch.cli import options as command_options
from subarch.cli.options import GROUPS, progress
from subarch.compressing.config import CompressConfig
from subarch.errors import InvalidTeacher
from subarch.exporting.config import ExportConfig
from subarch.extraction.config import MEASUREMENT, QUESTION, ExtractConfig
from subarch.finetuning.config import AugmentConfig, FinetuneConfig
from subarch.latency.config import BenchConfig
from subarch.learning.losses import LOSSES
from subarch.pipeline import extract
from subarch.planning.config import PlanConfig
from subarch.pretraining.config import PretrainConfig
from subarch.recording.config import RecordConfig
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Compressed, Pretraining
from tiny import tiny_teacher
from tiny_run import AXES, OneProcess, tiny_config, tiny_options

COMMANDS = ("compress", "space", "doctor", "config", "report", "demo", "extract", "select", "pretrain", "record")

# A value for each key that is not its default, and allowed together with the others
VALUES: dict[str, Any] = {
    "teacher": "some/teacher",
    "start_from": "some/encoder",
    "prompt": "query: ",
    "corpus": ["one.txt", "two words.txt"],
    "data": "glue_data",
    "text_column": "body",
    "space": "demo",
    "error": "task",
    "task": "task.jsonl",
    "objective": "latency",
    "max_latency_ms": 4.5,
    "max_latency_ratio": 0.25,
    "max_parameters": 123,
    "max_megabytes": 7.5,
    "keep": 0.5,
    "heads": "all",
    "strategy": "exhaustive",
    "delta": 0.2,
    "repeats": 2,
    "audit": 6,
    "epsilon": 7,
    "cost": "operations",
    "steps": 11,
    "learning_rate": [1e-4, 5e-5],
    "batch_size": [8, 16],
    "max_length": 24,
    "heldout": 33,
    "vocabulary_size": 400,
    "initialise": "scratch",
    "latency_batch": 2,
    "latency_length": 16,
    "length_from": "corpus",
    "latency_threads": 1,
    "runtime": "onnx-int8",
    "workers": 3,
    "ray": "local",
    "threads_per_worker": 2,
    "minutes": 20.0,
    "trial_minutes": 2.5,
    "seed": 9,
    "reuse": ["runs/one", "runs/two"],
    "learn_from": ["runs/three"],
    "database": "sqlite:///x.db",
}

# The same of pretraining
PRETRAIN_VALUES: dict[str, Any] = {
    "architecture": "2-2-32-64",
    "teacher": "some/teacher",
    "start_from": "some/encoder",
    "prompt": "query: ",
    "corpus": ["one.txt", "two words.txt"],
    "text_column": "body",
    "streaming": True,
    **{f"loss_{name}": 0.25 for name in LOSSES},
    "dimensions": "96,48",
    "temperature": 3.0,
    "top_k": 8,
    "maskings": 2,
    "vocabulary_size": 400,
    "max_length": 24,
    "batch_tokens": 4096,
    "micro_tokens": 512,
    "steps": 11,
    "minutes": 1.5,
    "learning_rate": 1e-3,
    "warm_up": 0.1,
    "weight_decay": 0.0,
    "clip": 0.0,
    "optimizer": "sgd",
    "dropout": 0.1,
    "freeze_embeddings": True,
    "precision": "bf16",
    "compile": True,
    "initialise": "scratch",
    "targets": "live",
    "heldout": 33,
    "evaluations": 3,
    "threads": 1,
    "seed": 9,
}

TRAINED = Pretraining.model_validate(
    report_fixture.example().pretraining
    | {
        "architecture": "2-2-32-64",
        "losses": {"embedding": 1.0, "relations": 0.25},
        "heldout": [
            {"step": 0, "seconds": 0.1, "embedding": 0.75, "error": 1.0, "relations": 2.5, "loss": 1.375},
            {"step": 1200, "seconds": 90.0, "embedding": 0.125, "error": 0.167, "relations": 1.25, "loss": 0.4375},
        ],
        "steps": 1200,
        "tokens": 1_234_567,
        "seconds": 90.0,
        "tokens_per_second": 13717.4,
        "padding": 0.0234,
    }
)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in this process, as the installed script does; messages come as one line."""

    def command(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["subarch", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return Outcome(code, out, " ".join(err.split()))

    return command


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(tiny_config(folder, epsilon=13), folder / "run")
        yield folder / "run"


def options(command: str) -> dict[str, Any]:
    found = cli.app.commands[command].params
    return {parameter.name: parameter for parameter in found if parameter.name is not None}


# The surface


def test_the_options_of_extract_are_the_keys_of_the_configuration() -> None:
    found = options("extract")
    assert set(found) == {*ExtractConfig.model_fields, "run", "config", "resume", "remeasure", "as_json"}
    assert set(VALUES) == set(ExtractConfig.model_fields)
    for key in ExtractConfig.model_fields:
        assert found[key].opts == [f"--{key.replace('_', '-')}"]
        assert found[key].multiple == isinstance(VALUES[key], list)
        assert found[key].default is None  # what was not given must not override a file


def test_the_options_of_pretrain_are_the_keys_of_its_configuration() -> None:
    found = options("pretrain")
    assert set(found) == {*PretrainConfig.model_fields, "run", "config", "restart", "as_json"}
    assert set(PRETRAIN_VALUES) == set(PretrainConfig.model_fields)
    for key in PretrainConfig.model_fields:
        assert found[key].opts == [f"--{key.replace('_', '-')}"]
        assert found[key].multiple == isinstance(PRETRAIN_VALUES[key], list)
        assert found[key].default is None


def test_the_options_of_select_are_what_may_be_asked_later() -> None:
    assert set(options("select")) == {*QUESTION, *MEASUREMENT, "run", "remeasure", "as_json"}


def test_every_key_of_every_configuration_stands_in_one_panel() -> None:
    kinds: tuple[Any, ...] = (CompressConfig, ExtractConfig, PretrainConfig, FinetuneConfig, ExportConfig)
    kinds = (*kinds, AugmentConfig, BenchConfig, PlanConfig, RecordConfig)
    named = [key for keys in GROUPS.values() for key in keys.split()]
    assert len(named) == len(set(named))
    assert set(named) == {key for kind in kinds for key in kind.model_fields}


@pytest.mark.parametrize("key", sorted(VALUES))
def test_every_option_reaches_the_configuration(
    call: Call, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ExtractConfig] = []

    def noting(config: ExtractConfig, path: Path, **rest: Any) -> dict[str, Any]:
        seen.append(config)
        raise InvalidTeacher("far enough")

    monkeypatch.setattr("subarch.pipeline.extract", noting)
    needed: dict[str, Any] = {"teacher": "t", "corpus": ["c"]}
    if key == "task":
        needed["error"] = "task"
    elif key == "error":
        needed["task"] = "t.jsonl"
    elif key == "objective":
        needed["keep"] = 0.5
    elif key == "keep":
        needed["objective"] = "latency"
    elif key == "data":
        needed = {"teacher": "t", "task": "mrpc"}
    elif key == "vocabulary_size":
        needed = {"corpus": ["c"], "error": "mlm", "initialise": "scratch"}
    given = needed | {key: VALUES[key]}
    words = [
        word
        for name, value in given.items()
        for item in (value if isinstance(value, list) else [value])
        for word in (f"--{name.replace('_', '-')}", item)
    ]
    assert call("extract", "--run", tmp_path / "run", *words).code == 1
    assert seen == [load(ExtractConfig, None, given)]
    assert getattr(seen[0], key) != ExtractConfig.model_fields[key].get_default()
    # and the same from a file, which an option overrides
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(given | {"seed": 4}))
    call("extract", "--run", tmp_path / "run", "--config", tmp_path / "c.yaml", "--seed", "5")
    assert seen[1] == load(ExtractConfig, None, given | {"seed": 5})


class Pretrainings(NamedTuple):
    """What the stand-ins for `pretraining.pretrain.configure` and `pipeline.pretrain` were called with."""

    configured: list[tuple[Path, Path | None, dict[str, Any]]]
    trained: list[tuple[Path, Any, bool]]


@pytest.fixture
def pretrainings(monkeypatch: pytest.MonkeyPatch) -> Pretrainings:
    seen = Pretrainings([], [])

    def configure(run: Path, file: Path | None, given: dict[str, Any]) -> str:
        seen.configured.append((run, file, given))
        return "settings"

    def pretrain(run: Path, config: Any, restart: bool, report: Any) -> Pretraining:
        seen.trained.append((run, config, restart))
        report("pretraining, loss 0.5", 3, 10)
        return TRAINED

    monkeypatch.setattr("subarch.pretraining.pretrain.configure", configure)
    monkeypatch.setattr("subarch.pipeline.pretrain", pretrain)
    return seen


@pytest.mark.parametrize("key", sorted(PRETRAIN_VALUES))
def test_every_option_reaches_the_configuration_of_pretraining(
    call: Call, pretrainings: Pretrainings, key: str
) -> None:
    value = PRETRAIN_VALUES[key]
    flag = f"--{key.replace('_', '-')}"
    items = value if isinstance(value, list) else [value]
    words = [flag] if value is True else [word for item in items for word in (flag, item)]
    assert call("pretrain", "runs/x", *words).code == 0
    expected = Path(value) if key in ("teacher", "start_from") else value
    assert pretrainings.configured == [(Path("runs/x"), None, {key: expected})]
    assert pretrainings.trained == [(Path("runs/x"), "settings", False)]
    assert expected != PretrainConfig.model_fields[key].get_default()
    if value is True:
        call("pretrain", "runs/x", f"--no-{key.replace('_', '-')}")
        assert pretrainings.configured[1][2] == {key: False}  # over a file that says otherwise


def test_pretraining_shows_what_came_of_it(call: Call, pretrainings: Pretrainings) -> None:
    shown = call("pretrain", "runs/[x]", "--config", "c.yaml", "--restart")
    assert shown.code == 0
    assert pretrainings.configured == [(Path("runs/[x]"), Path("c.yaml"), {})]
    assert pretrainings.trained == [(Path("runs/[x]"), "settings", True)]
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["embedding", "1", "0.750", "0.125"] in lines
    assert ["relations", "0.25", "2.50", "1.25"] in lines
    assert ["all,", "weighted", "1.38", "0.438"] in lines
    assert ["error,", "as", "of", "a", "search", "1.00", "0.167"] in lines
    assert "1,200 steps, 1,234,567 tokens, 1.5 minutes, 13,717 tokens/s, 2.3% padding" in shown.out.splitlines()
    assert shown.out.endswith("trained 2-2-32-64: runs/[x]/pretrained\n")
    assert "pretraining, loss 0.5" in shown.err
    printed = call("pretrain", "runs/x", "--json")
    assert json.loads(printed.out) == TRAINED.to_dict()


def test_of_many_processes_the_first_alone_speaks(
    call: Call, pretrainings: Pretrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    for words in ((), ("--json",)):
        assert call("pretrain", "runs/x", *words) == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    assert json.loads(call("pretrain", "runs/x", "--json").out) == TRAINED.to_dict()
    assert len(pretrainings.trained) == 3

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subarch.pipeline.pretrain", interrupted)
    assert call("pretrain", "runs/x").err.endswith("continue with: subarch pretrain runs/x")
    monkeypatch.setenv("RANK", "1")
    assert call("pretrain", "runs/x") == (130, "", "")


def test_after_ctrl_c_the_same_goes_on_and_does_not_begin_anew(
    call: Call, pretrainings: Pretrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subarch.pipeline.pretrain", interrupted)
    outcome = call("pretrain", "runs/a [b]", "--restart", "--corpus", "two words", "--minutes", "3")
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.endswith("continue with: subarch pretrain 'runs/a [b]' --corpus 'two words' --minutes 3")


def test_the_module_runs_as_the_command_does() -> None:
    words = [sys.executable, "-m", "subarch", "space", "--length", "0"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: subarch space" in done.stderr


HELP = """
import contextlib, io, sys, time
from subarch.cli.app import main
for words in ([], *([name] for name in sys.argv[1].split(","))):
    sys.argv = ["subarch", *words, "--help"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    print(len(out.getvalue()))
    print(out.getvalue())
heavy = {"torch", "transformers", "pandas", "scipy", "sklearn", "optuna", "plotly"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def test_help_answers_everywhere_and_imports_nothing_heavy() -> None:
    words = [sys.executable, "-c", HELP, ",".join(COMMANDS)]
    wide = os.environ | {"COLUMNS": "300", "TERMINAL_WIDTH": "300"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=wide)
    assert done.returncode == 0, done.stderr
    assert all(int(line) > 200 for line in done.stdout.splitlines() if line.isdigit())
    assert all(
        panel in done.stdout for panel in GROUPS if panel not in ("Task", "Agora", "Export", "Vectors", "Requests")
    )
    assert "Search space: auto (sub-architectures of what candidates start from), paper," in done.stdout
    assert "[error|latency|w]" in done.stdout
    for key in {*ExtractConfig.model_fields, *PretrainConfig.model_fields}:
        assert f"--{key.replace('_', '-')}" in done.stdout
    assert "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no candidate meets the limits, 130" in " ".join(
        done.stdout.split()
    )


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"subarch {subarch.__version__}\n", "")


# Commands that train nothing


def test_space_lists_the_paper(call: Call) -> None:
    listing = json.loads(call("space", "--preset", "paper", "--json").out)
    assert len(listing["candidates"]) == 300
    assert listing["maximum_point"] == "12-4-1024-3072"
    assert listing["depth"] == [2, 4, 6, 8, 10, 12]
    operations = [row["operations"] for row in listing["candidates"]]
    assert operations == sorted(operations)
    shown = call("space", "--preset", "paper")
    assert (shown.code, shown.err) == (0, "")
    assert "260 more" in shown.out
    assert listing["abnc"].split()[0] in shown.out


def test_space_reads_a_file_and_its_options(call: Call, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(AXES))
    words = ("--vocabulary", 100, "--positions", 20, "--token-types", 1, "--output", 32, "--length", 10)
    listing = json.loads(call("space", "--preset", tmp_path / "s.yaml", *words, "--json").out)
    static = next(row for row in listing["candidates"] if row["architecture"] == "0-0-16-0")
    assert static["embedding_parameters"] == (100 + 20 + 1 + 2) * 16
    assert static["projection_parameters"] == 17 * 32
    assert listing["space"] == "s"


@pytest.mark.parametrize(
    "words",
    [
        ("space", "--length", "0"),
        ("space", "--length", "100000000000"),
        ("space", "--vocabulary", "-5"),
        ("space", "--output", "-1"),
        ("doctor", "--seconds", "0"),
        ("nonsense",),
        ("extract", "--no-such-option", "1"),
        ("extract", "--steps", "many"),
        ("extract", "--objective", "fast"),
        ("extract", "--resume"),
        ("select",),
        ("report",),
        ("pretrain",),
        ("pretrain", "runs/x", "--steps", "many"),
    ],
)
def test_wrong_usage_is_two(call: Call, words: tuple[str, ...]) -> None:
    outcome = call(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Usage: subarch" in outcome.err
    assert "Traceback" not in outcome.err


def test_doctor_tells_json(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.run.machine.SIZE", 64)
    outcome = call("doctor", "--seconds", "0.1", "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 0
    assert found["versions"]["subarch"] == subarch.__version__
    shown = call("doctor", "--seconds", "0.1")
    assert set(found) - {"warnings"} <= set(shown.out.split())


def test_config_prints_what_loads_back(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(call("config").out)
    assert load(ExtractConfig, path, {}) == load(
        ExtractConfig, None, {"teacher": "path/to/teacher", "corpus": ["path/to/text"]}
    )
    path.write_text("teacher: t\ncorpus: [a, b]\nsteps: 7\n")
    completed = call("config", path)
    assert completed.code == 0
    (tmp_path / "d.yaml").write_text(completed.out)
    assert load(ExtractConfig, tmp_path / "d.yaml", {}) == load(ExtractConfig, path, {})
    path.write_text("teacher: t\ncorpus: [a]\nstep: 7\n")
    refused = call("config", path)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"InvalidConfig: {path}: unknown key 'step'; the nearest known key is 'steps'"


# Refusals are one message and exit code 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("extract",), "teacher is missing: error 'embedding' is measured with one"),
        (("extract", "--corpus", "c"), "teacher is missing"),
        (("extract", "--corpus", "c", "--teacher", "t", "--delta", "2"), "InvalidConfig: --delta: delta = 2"),
        (("extract", "--corpus", "c", "--teacher", "t", "--space", "nowhere.yaml"), "InvalidSpace: nowhere.yaml"),
        (("extract", "--config", "none.yaml"), "InvalidConfig: none.yaml: cannot be read"),
        (("extract", "--run", "nothing", "--resume"), "InvalidStudy: nothing: no run folder"),
        (("extract", "--run", "nothing", "--resume", "--workers", "2"), "InvalidStudy: nothing: no run folder"),
        (("select", "nothing"), "InvalidStudy: nothing: no run folder"),
        (("report", "[bold]nothing[/bold]"), "InvalidStudy: [bold]nothing[/bold]: no run folder"),
        (("space", "--preset", "[/nothing]"), "InvalidSpace: [/nothing]: neither a preset"),
    ],
)
def test_what_is_refused_says_why(
    call: Call, words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call(*words)
    assert (outcome.code, outcome.out) == (1, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


# A run


def test_what_is_warned_of_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def warns(prog_name: str) -> None:
        warnings.warn_explicit("the boat leaks", UserWarning, cli.__file__, 7)
        warnings.warn_explicit("the bell is old", UserWarning, "elsewhere.py", 8)

    monkeypatch.setattr(cli, "app", warns)
    with pytest.warns(UserWarning, match="the bell is old") as others:
        assert call("tasks").err == "warning: the boat leaks"
    assert len(others) == 1


def test_a_run_is_shown_as_a_table_or_as_json(call: Call, finished: Path) -> None:
    recorded = json.loads((finished / "selection.json").read_text())
    printed = call("extract", "--run", finished, "--resume", "--json")
    assert printed.code == 0
    assert json.loads(printed.out) == recorded
    shown = call("extract", "--run", finished, "--resume")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert f"selected {recorded['winner']['architecture']}: {finished / 'selected'}" in lines
    assert f"report: {finished / 'report.html'}" in lines
    (chosen,) = [line for line in lines if "→" in line]
    assert recorded["winner"]["architecture"] in chosen
    assert sum("│" in line for line in lines) == len(recorded["frontier"])
    assert recorded["gap_sentence"] in " ".join(shown.out.split())


def test_resuming_with_another_setting_is_refused_by_name(call: Call, finished: Path) -> None:
    refused = call("extract", "--run", finished, "--resume", "--steps", 7)
    assert refused.code == 1
    assert "the input changed since this was started: steps = 7 now and was 6" in refused.err
    again = call("extract", "--run", finished, "--teacher", "t", "--corpus", "c")
    assert again.code == 1
    assert "holds a run already; add --resume" in again.err


def test_a_later_question_and_the_first_one_again(call: Call, finished: Path) -> None:
    before = (finished / "selection.json").read_bytes()
    wide = call("select", finished, "--cost", "operations", "--max-parameters", 20_000, "--json")
    assert wide.code == 0
    assert json.loads(wide.out)["objective"]["max_parameters"] == 20_000
    assert json.loads(wide.out)["winner"]["architecture"] == "0-0-32-0"
    asked = call("select", finished, "--objective", "w", "--cost", "operations")
    assert "warning: W assumes an error bounded away from 0" in asked.err
    assert call("select", finished).code == 0
    assert (finished / "selection.json").read_bytes() == before


def test_limits_that_nobody_meets_are_three_and_name_the_nearest(call: Call, finished: Path) -> None:
    words = ("select", finished, "--cost", "operations", "--max-parameters", "5")
    shown = call(*words)
    assert shown.code == 3
    assert "no candidate meets the limits; 0-0-32-0 comes nearest" in shown.err
    assert "selected" not in shown.out
    printed = call(*words, "--json")
    assert printed.code == 3
    assert json.loads(printed.out)["nearest"]["row"]["architecture"] == "0-0-32-0"
    assert call("select", finished).code == 0


def test_the_report_is_written_again(call: Call, finished: Path) -> None:
    (finished / "report.html").unlink()
    assert call("report", finished) == (0, f"{finished / 'report.html'}\n", "")
    assert "3-4-32-64" in (finished / "report.html").read_text()


def test_paths_are_printed_as_they_are(call: Call, finished: Path, tmp_path: Path) -> None:
    odd = tmp_path / "[bold]runs[" / "x] y"  # the separator makes it a closing tag
    odd.parent.mkdir()
    finished.rename(odd)
    try:
        shown = call("select", odd)
        assert shown.code == 0
        assert f"report: {odd / 'report.html'}" in shown.out.splitlines()
    finally:
        odd.rename(finished)


@pytest.mark.parametrize(
    ("target", "words", "resume"),
    [
        (
            "subarch.pipeline.extract",
            ("extract", "--corpus", "c", "--teacher", "t", "--run"),
            "extract --run {} --resume",
        ),
        ("subarch.pipeline.select", ("select",), "select {}"),
        ("subarch.demo.demo.demonstrate", ("demo", "--run"), "demo --run {}"),
    ],
)
def test_ctrl_c_is_130_and_says_how_to_go_on(
    call: Call, target: str, words: tuple[str, ...], resume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(target, interrupted)
    path = "runs/with [red] and space"
    outcome = call(*words, path)
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.endswith(f"continue with: subarch {resume.format(shlex.quote(path))}")


def test_the_demo_prints_its_table_and_its_lines(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"model": "teacher", "runtime": "onnx", "ms": 12.3456, "MRR": 0.5},
        {"model": "student 1-2-8-8", "runtime": "onnx-int8", "ms": 4.0, "MRR": 0.12345},
    ]
    found = Compressed.model_construct(lines=("got one", "lies in [here]"), serving=object())
    monkeypatch.setattr(Compressed, "to_dict", lambda self: {"lines": list(self.lines)})
    monkeypatch.setattr("subarch.demo.demo.demonstrate", lambda path, report, say: (found, rows))
    shown = call("demo", "--run", "runs/x")
    assert shown.code == 0
    assert all(text in shown.out for text in ("onnx-int8", "12.35", "0.123"))
    assert shown.out.endswith("got one\nlies in [here]\n")
    printed = call("demo", "--run", "runs/x", "--json")
    assert json.loads(printed.out) == {"compressed": {"lines": list(found.lines)}, "comparison": rows}
    found = found.model_copy(update={"serving": None})
    assert call("demo", "--run", "runs/x").code == 3


def tell(report: Any) -> None:
    report("reading [bold", 0, 0)
    report("reading [bold", 5, 0)
    report("training, last 1", 0, 10)
    report("training, last 2", 10.0, 10.0)
    report("reading [bold", 6, 0)


def test_without_a_terminal_a_stage_is_a_line_when_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("reading [bold", 0, 0)
        first = capsys.readouterr().err  # at once, not at the end
        tell(report)
    assert re.fullmatch(r" +\d\.\d s  reading \[bold\n", first)
    assert re.fullmatch(r" +\d\.\d s  training, last 1\n", capsys.readouterr().err)


def test_bars_take_whatever_stages_say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_options.errors, "_force_terminal", True)
    with progress() as report:
        tell(report)
    assert "training, last 2" in capsys.readouterr().err


def test_a_run_without_a_name_gets_one_by_the_time(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    words = [
        word
        for key, value in tiny_options(tmp_path, max_parameters=1).items()
        for item in (value if isinstance(value, list) else [value])
        for word in (f"--{key.replace('_', '-')}", item)
    ]
    outcome = call("extract", *words)
    assert outcome.code == 3
    (run,) = (tmp_path / "runs").iterdir()
    assert abs(time.mktime(time.strptime(run.name, "%Y%m%d-%H%M%S")) - time.time()) < 3600
    # The one that runs, with what the teacher decides
    assert RunFolder.open(run).config(ExtractConfig) == tiny_config(tmp_path, max_parameters=1, error="embedding")
    assert not (run / "weights").exists()


def test_export_tells_how_like_it_is_and_where(call: Call, tmp_path: Path) -> None:
    model = tiny_teacher(tmp_path / "model")
    words = ["export", model, "--run", tmp_path / "run"]
    shown = call(*words)
    assert shown.code == 0, shown.err
    assert "sentence_embedding" in shown.out
    assert "random tokens" in " ".join(shown.out.split())
    found = json.loads(call(*words, "--json").out)
    assert Path(found["folder"]) == tmp_path / "run" / "exported" / "onnx"
    assert found["likeness"]["sentence_embedding"]["worst_cosine"] > 0.999
    assert (Path(found["folder"]) / "onnx" / "model.onnx").is_file()
    assert call("export", model, "--runtime", "tflite").code == 2
