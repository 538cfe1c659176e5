"""The shape of the package: which module may import which, what importing costs, how long a file may be.

A new module needs a line in ALLOWED; a new edge needs a reason. Leaves know nothing of stages, stages know leaves but
not each other, only `pipeline` knows the stages in order, and `commands` and `cli` only parse and call.
"""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
SOURCES = REPOSITORY / "src"
PACKAGE = SOURCES / "subarch"

# What a module (or a folder of modules, as one) may import of ours. `subarch` is the package itself: its version only.
ALLOWED: dict[str, str] = {
    # leaves
    "errors": "",
    "architecture": "errors",
    "yamlfile": "errors",
    "space": "errors architecture yamlfile",
    "objectives": "errors architecture space",
    "losses": "errors architecture",
    "configuration": "errors yamlfile",
    "options": "",
    "progress": "",
    "screen": "",
    "doctor": "errors subarch",
    "lengths": "errors",
    "visits": "",
    "sentence": "errors",
    "readers": "errors",
    "packed": "folders errors",
    "masking": "errors",
    "products": "",
    "tensors": "",
    "folders": "",
    "card": "errors yamlfile",
    # what stands on the numbers alone
    "abnc": "errors architecture space objectives",
    "selection": "errors architecture space objectives",
    "search": "errors architecture space objectives",
    # what stands on text and weights
    "docstrings": "errors readers",
    "origin": "docstrings readers",
    "corpus": "errors packed readers",
    "scoring": "errors readers",
    "teacher": "errors architecture sentence packed",
    "model": "errors architecture sentence teacher",
    "weights": "errors model tensors",
    "inherit": "errors architecture model teacher tensors",
    "handover": "folders errors model sentence",
    "latency": "errors architecture model doctor visits",
    # the record of a run, and the page about it
    "runs": "configuration errors extraction.config",
    "report": "errors architecture space objectives",
    # the search: what is asked, how a candidate is trained, in which processes, what is answered
    "extraction.config": "errors configuration",
    "extraction.trial": "errors architecture",
    "extraction.estimate": "errors architecture model losses extraction.trial",
    "extraction.signals": "errors losses masking model packed scoring sentence teacher extraction.trial",
    "extraction.study": "errors architecture extraction.trial",
    "extraction.elastic": "architecture extraction.estimate inherit model",
    "extraction.hints": "architecture extraction.question extraction.searching extraction.study extraction.trial "
    "extraction.workers progress",
    "extraction.workbench": "errors architecture extraction.config corpus extraction.elastic extraction.estimate "
    "inherit model progress space scoring extraction.signals teacher extraction.trial weights",
    "extraction.workers": "errors architecture extraction.config extraction.trial extraction.workbench",
    "extraction.cluster": "errors architecture extraction.config extraction.trial extraction.workers",
    "extraction.question": "errors architecture space objectives search selection extraction.config extraction.trial",
    "extraction.searching": "architecture progress runs search extraction.question extraction.study extraction.trial "
    "extraction.workers",
    "extraction.certificate_words": "",
    "extraction.certificate": "search extraction.certificate_words extraction.question extraction.trial",
    "extraction.conclude": "errors architecture space objectives search selection abnc extraction.latency_words "
    "extraction.certificate extraction.question extraction.trial",
    "extraction.prepare": "errors architecture extraction.config doctor model progress runs sentence "
    "extraction.signals extraction.workbench",
    # latency: candidates are measured in the runtime that will serve, so as `export` writes them
    "extraction.latency_model": "",
    "extraction.latency_cache": "",
    "extraction.latency_words": "",
    "extraction.measuring": "errors architecture configuration export.config export.exportable export.export "
    "export.packages export.runtimes export.seal extraction.config extraction.latency_cache latency model progress "
    "sentence teacher",
    "extraction.latencies": "errors doctor extraction.config extraction.latency_cache extraction.latency_model "
    "extraction.measuring extraction.prepare extraction.question lengths packed progress runs space teacher",
    # full training: batches, what is learnt from them, the loop, and what it leaves
    "pretraining.config": "errors architecture configuration",
    "pretraining.checkpoints": "errors",
    "pretraining.batching": "errors corpus packed readers",
    "pretraining.collate": "errors pretraining.batching masking sentence teacher",
    "pretraining.distill": "errors losses model products sentence teacher",
    "pretraining.targets": "errors pretraining.collate pretraining.distill packed tensors",
    "pretraining.timing": "pretraining.distill",
    "pretraining.material": "errors architecture pretraining.batching pretraining.collate corpus pretraining.distill "
    "inherit masking model packed progress pretraining.config sentence pretraining.targets teacher weights",
    "pretraining.schedule": "pretraining.collate pretraining.material pretraining.config pretraining.timing",
    "pretraining.trainer": "errors pretraining.checkpoints pretraining.collate pretraining.distill",
    "pretraining.outcome": "architecture card doctor handover latency pretraining.material model progress "
    "pretraining.config runs pretraining.schedule pretraining.trainer",
    "pretraining.pretrain": "configuration errors architecture pretraining.checkpoints pretraining.collate doctor "
    "pretraining.material model pretraining.outcome progress pretraining.config runs pretraining.schedule "
    "pretraining.targets pretraining.trainer extraction.trial yamlfile",
    # what it will cost
    "planning.config": "configuration",
    "planning.cost": "errors architecture pretraining.config",
    "planning.pace": "planning.cost pretraining.distill doctor model sentence teacher pretraining.timing",
    "planning.plan": "errors architecture planning.cost planning.pace packed planning.config pretraining.config "
    "sentence teacher",
    # tasks as data
    "tasks": "errors readers",
    # fine-tuning: what is learnt, one training, the search over trainings
    "finetuning.config": "errors configuration",
    "finetuning.adequacy": "tasks",
    "finetuning.card": "tasks",
    "finetuning.division": "errors finetuning.config tasks",
    "finetuning.heads": "errors products tasks teacher",
    "finetuning.trainer": "errors finetuning.config finetuning.heads progress tasks",
    "finetuning.occurring": "finetuning.heads",
    "finetuning.fit": "folders errors finetuning.config finetuning.trainer finetuning.heads finetuning.occurring "
    "progress tasks teacher",
    "finetuning.finetune": "errors finetuning.adequacy finetuning.division doctor finetuning.config finetuning.fit "
    "finetuning.strategies evaluation.assess card finetuning.card progress readers runs tasks teacher",
    # Agora: the loop, what it writes down, what it makes points with, which sets go
    "finetuning.rewording": "errors masking readers teacher",
    "finetuning.neighbours": "errors readers finetuning.rewording tasks teacher",
    "finetuning.pruning": "",
    "finetuning.diary": "errors finetuning.config finetuning.neighbours readers tasks",
    "finetuning.agora": "errors finetuning.adequacy finetuning.diary finetuning.config finetuning.neighbours "
    "finetuning.pruning tasks",
    "finetuning.strategies": "folders errors finetuning.agora finetuning.config finetuning.diary finetuning.division "
    "finetuning.fit finetuning.neighbours finetuning.pruning progress runs tasks",
    # what a fine-tuned model is worth
    "evaluation.weighted": "tasks",
    "evaluation.resampling": "errors tasks evaluation.weighted",
    "evaluation.assess": "errors doctor report evaluation.resampling runs tasks",
    "evaluation.evaluate": "errors configuration finetuning.division evaluation.assess finetuning.config "
    "finetuning.fit progress readers runs tasks",
    # export: what is exported, how, what runs it, what it is compared on and by
    "export.config": "configuration",
    "export.packages": "errors doctor",
    "export.runtimes": "export.packages visits",
    "export.seal": "errors export.packages export.runtimes",
    "export.exportable": "errors export.config sentence teacher",
    "export.graph": "export.exportable",
    "export.text": "errors corpus export.exportable teacher",
    "export.int8": "export.exportable export.packages export.text",
    "export.parity": "export.config export.exportable export.runtimes export.text progress",
    "export.task": "errors configuration export.exportable export.runtimes finetuning.config finetuning.division "
    "finetuning.fit finetuning.heads progress runs tasks",
    "export.export": "errors export.config doctor export.exportable export.graph export.int8 export.packages "
    "export.parity folders progress runs export.runtimes export.seal sentence export.task export.text",
    # bench: what is timed, the processes that serve it, who asks them in turn
    "bench.config": "configuration",
    "bench.serving": "export.exportable export.runtimes model products visits",
    "bench.processes": "errors",
    "bench.subjects": "errors architecture bench.config configuration export.config export.export export.exportable "
    "export.seal latency model runs teacher",
    "bench.bench": "errors bench.config bench.processes bench.subjects corpus doctor export.packages lengths progress "
    "teacher visits",
    "bench.page": "errors bench.bench bench.config progress report runs",
    "bench.screen": "",
    "verify": "errors architecture extraction.certificate_words extraction.study runs",
    # the whole
    "pipeline": "*",
    "demo": "*",
    "commands": "*",
    "cli": "*",
    "__main__": "cli",
}

WHOLE = {"report", "search", "tasks"}
"""Folders that have one line in ALLOWED; the modules of other folders have one each."""

# Modules that need torch to say anything at all; all others, and so --help, load without it
HEAVY = {
    "losses",
    "teacher",
    "model",
    "tensors",
    "weights",
    "products",
    "inherit",
    "latency",
    "handover",
    "extraction.estimate",
    "extraction.signals",
    "extraction.elastic",
    "extraction.workbench",
    "extraction.prepare",
    "extraction.measuring",
    "extraction.latencies",
    "pretraining.collate",
    "pretraining.distill",
    "pretraining.targets",
    "pretraining.timing",
    "pretraining.material",
    "pretraining.schedule",
    "pretraining.trainer",
    "pretraining.outcome",
    "pretraining.pretrain",
    "planning.pace",
    "finetuning.heads",
    "finetuning.occurring",
    "finetuning.trainer",
    "finetuning.fit",
    "finetuning.strategies",
    "finetuning.finetune",
    "evaluation.evaluate",
    "export.exportable",
    "export.graph",
    "export.text",
    "export.int8",
    "export.parity",
    "export.task",
    "export.export",
    "bench.subjects",
    "bench.bench",
    "bench.page",
    "pipeline",
    "demo",
}

LONGEST = 350
LONGEST_STRATEGY = 300


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file; a package is named by its folder, the root is `subarch`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "subarch"] = path
    return found


MODULES = modules()
FOLDERS = {name for name, path in MODULES.items() if path.stem == "__init__"} - {"subarch"} - WHOLE


def home(name: str) -> str:
    """What a module is called in ALLOWED and HEAVY."""
    first = name.split(".")[0]
    return first if first in WHOLE else name


def imports(path: Path, only_on_import: bool = False) -> Iterator[str]:
    """Dotted names that a file imports at run time; `only_on_import` leaves out those inside functions."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            # `from subarch.show import figures` names a module, `from subarch.numbers.space import Costs` does not
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not (only_on_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            pending += ast.iter_child_nodes(node)


def ours(name: str, only_on_import: bool = False) -> set[str]:
    """Our modules that a module imports, each as the most exact module named."""
    found = set()
    for imported in imports(MODULES[name], only_on_import):
        if imported.split(".")[0] == "subarch":
            parts = imported.split(".")[1:]
            while parts and ".".join(parts) not in MODULES:
                parts.pop()
            found.add(".".join(parts) or "subarch")
    return found - {name}


def test_the_reader_of_imports_sees_what_is_there() -> None:
    assert {"errors", "architecture"} <= ours("space")
    assert "subarch.errors.InvalidSpace" in imports(MODULES["space"])
    assert ours("subarch") == set()  # only under TYPE_CHECKING, and lazily
    assert "torch" in imports(MODULES["doctor"])
    assert "torch" not in imports(MODULES["doctor"], only_on_import=True)


def test_every_module_has_a_line() -> None:
    homes = {home(name) for name in MODULES} - {"subarch", *FOLDERS}
    assert homes == set(ALLOWED), "give each new module a line in ALLOWED"


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"subarch", *FOLDERS}))
def test_edges_are_allowed(name: str) -> None:
    line = ALLOWED[home(name)]
    allowed = {*ALLOWED, "subarch"} if line == "*" else {*line.split(), home(name)}
    used = {home(other) for other in ours(name)}
    assert used <= allowed, f"{name} may not import {sorted(used - allowed)}"


def test_no_import_cycles() -> None:
    # Imports inside functions count: they hide cycles rather than break them
    order = TopologicalSorter({name: ours(name) for name in MODULES})
    assert set(order.static_order()) >= set(MODULES)


@pytest.mark.parametrize("name", sorted(name for name in MODULES if home(name) not in HEAVY))
def test_light_modules_load_nothing_heavy(name: str) -> None:
    external = {imported.split(".")[0] for imported in imports(MODULES[name], only_on_import=True)}
    assert not external & {"torch", "transformers", "datasets", "tokenizers", "sentence_transformers"}
    assert not {home(other) for other in ours(name, only_on_import=True)} & HEAVY


LIGHT = ["", ".space", ".sentence", ".doctor", ".extraction.config", ".runs", ".cli"]


def test_importing_loads_no_torch() -> None:
    """One after the other, in one process: the first that loads too much is named."""
    names = [f"subarch{name}" for name in LIGHT]
    code = f"import sys\nfor name in {names}:\n    __import__(name)\n    print(name, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCES, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == names
    for line in lines:
        name, *loaded = line.split()
        heavy = {"torch", "transformers", "datasets", "optuna", "sklearn", "scipy"}
        assert not heavy & {module.split(".")[0] for module in loaded}, name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_files_are_short(name: str) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    is_strategy = name.startswith("search.") and name != "search.base"
    assert lines <= (LONGEST_STRATEGY if is_strategy else LONGEST)


def test_modules_open_with_a_docstring() -> None:
    missing = [
        name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert missing == []


def lock() -> dict[str, str]:
    lines = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin) for pin in pins), "name==version, nothing else"
    assert pins[0] == "torch==2.13.0"
    assert pins[1:] == sorted(pins[1:])
    return dict(pin.split("==") for pin in pins)


def test_the_lock_pins_every_requirement_within_its_range() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = lock()
    for text in itertools.chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(text)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text
