"""The shape of the package: which module may import which, what importing costs, how long a file may be.

A new module needs a line in ALLOWED; a new edge needs a reason. Leaves know nothing of stages, stages know leaves but
not each other, only `pipeline` knows the stages in order, and `cli` only parses and calls.
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
from importlib.util import find_spec
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
    "config": "errors configuration",
    "pretrain_config": "errors architecture configuration",
    "plan_config": "configuration",
    "cost": "errors architecture pretrain_config",
    "checkpoints": "errors",
    "card": "errors yamlfile",
    "options": "",
    "screen": "",
    "doctor": "errors subarch",
    "sentence": "errors",
    "readers": "errors",
    "packed": "errors",
    "masking": "errors",
    # what stands on the numbers alone
    "abnc": "errors architecture space objectives",
    "selection": "errors architecture space objectives",
    "search": "errors architecture space objectives",
    # what stands on text and weights
    "docstrings": "errors readers",
    "corpus": "errors packed readers",
    "scoring": "errors readers",
    "teacher": "errors architecture sentence packed",
    "model": "errors architecture sentence teacher",
    "tensors": "",
    "inherit": "errors architecture model teacher tensors",
    "latency": "errors architecture model doctor",
    # one trial, the record of all, and the page about them
    "trial": "errors architecture",
    "estimate": "errors architecture model losses trial",
    "signals": "errors losses masking model packed scoring sentence teacher trial",
    "study": "errors architecture trial",
    "report": "errors architecture space objectives",
    # the stages up to a trial, put together for one process, and the processes
    "workbench": "errors architecture config corpus estimate inherit model packed pretrain_config readers scoring "
    "signals teacher tensors trial",
    "workers": "errors architecture config trial workbench",
    # what is asked, what is answered, and where it is kept
    "question": "errors architecture space objectives search selection config trial",
    "conclude": "errors architecture space objectives search selection abnc question trial",
    "runs": "errors config",
    "handover": "errors model sentence",
    # full training: batches, what is learnt from them, the loop, and what it leaves
    "batching": "errors corpus packed readers",
    "collate": "errors batching masking sentence teacher",
    "products": "",
    "distill": "errors losses model products sentence teacher",
    "targets": "errors collate distill packed tensors",
    "timing": "distill",
    "material": "errors architecture batching collate corpus distill inherit masking model packed pretrain_config "
    "sentence targets teacher workbench",
    "schedule": "collate material pretrain_config timing",
    "trainer": "errors checkpoints collate distill",
    "outcome": "architecture card doctor handover latency material model pretrain_config runs schedule trainer "
    "workbench",
    "pretraining": "errors architecture checkpoints collate doctor material model outcome pretrain_config runs "
    "schedule targets trainer trial workbench workers yamlfile",
    "pace": "cost distill doctor model sentence teacher timing",
    "plan": "errors architecture cost pace packed plan_config pretrain_config sentence teacher",
    "prepare": "errors architecture config doctor latency model question runs sentence signals space teacher workbench",
    # tasks as data
    "tasks": "errors readers",
    "finetune_config": "errors configuration",
    "adequacy": "tasks",
    "heads": "errors products tasks teacher",
    "fit_trainer": "errors finetune_config heads tasks workbench",
    "finetuning": "errors finetune_config fit_trainer heads tasks teacher workbench",
    "division": "errors finetune_config tasks",
    "finetune": "errors adequacy division doctor finetune_config finetuning runs tasks teacher workbench",
    # Agora: the loop, what it writes down, what it makes points with, which sets go
    "rewording": "errors masking readers teacher",
    "neighbours": "errors readers rewording tasks teacher",
    "pruning": "",
    "diary": "errors finetune_config neighbours readers tasks",
    "agora": "errors adequacy diary finetune_config neighbours pruning tasks",
    # what a fine-tuned model is worth
    "weighted": "tasks",
    "resampling": "errors tasks weighted",
    "evaluation": "errors doctor report resampling runs tasks",
    "evaluate": "errors configuration division evaluation finetune_config finetuning readers runs tasks workbench",
    # the whole
    "pipeline": "*",
    "demo": "*",
    "cli": "*",
    "__main__": "cli",
}

# Modules that need torch to say anything at all; all others, and so --help, load without it
HEAVY = {
    "losses",
    "teacher",
    "model",
    "tensors",
    "inherit",
    "latency",
    "estimate",
    "signals",
    "workbench",
    "handover",
    "collate",
    "products",
    "distill",
    "targets",
    "timing",
    "material",
    "schedule",
    "trainer",
    "outcome",
    "pretraining",
    "pace",
    "prepare",
    "heads",
    "fit_trainer",
    "finetuning",
    "finetune",
    "evaluate",
    "pipeline",
    "demo",
}

LONGEST = 350
LONGEST_STRATEGY = 150


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file; a package is named by its folder, the root is `subarch`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "subarch"] = path
    return found


MODULES = modules()


def imports(path: Path, only_on_import: bool = False) -> Iterator[str]:
    """Dotted names that a file imports at run time; `only_on_import` leaves out those inside functions."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            # `from subarch.report import figures` names a module, `from subarch.space import Costs` does not
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
    homes = {name.split(".")[0] for name in MODULES} - {"subarch"}
    assert homes <= set(ALLOWED), "give each new module a line in ALLOWED"


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"subarch"}))
def test_edges_are_allowed(name: str) -> None:
    home = name.split(".")[0]
    allowed = set(ALLOWED if ALLOWED[home] == "*" else ALLOWED[home].split()) | {home}
    used = {other.split(".")[0] for other in ours(name)}
    if ALLOWED[home] == "*":
        used.discard("subarch")
    assert used <= allowed, f"{name} may not import {sorted(used - allowed)}"


def test_no_import_cycles() -> None:
    # Imports inside functions count: they hide cycles rather than break them
    order = TopologicalSorter({name: ours(name) for name in MODULES})
    assert set(order.static_order()) >= set(MODULES)


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.split(".")[0] not in HEAVY))
def test_light_modules_load_nothing_heavy(name: str) -> None:
    external = {imported.split(".")[0] for imported in imports(MODULES[name], only_on_import=True)}
    assert not external & {"torch", "transformers", "datasets", "tokenizers", "sentence_transformers"}
    assert not {other.split(".")[0] for other in ours(name, only_on_import=True)} & HEAVY


@pytest.mark.parametrize("name", ["subarch", "subarch.cli", "subarch.config", "subarch.doctor", "subarch.space"])
def test_importing_loads_no_torch(name: str) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} does not exist")
    code = f"import sys, {name}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCES, capture_output=True, text=True, check=True)
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert "subarch" in loaded
    assert not loaded & {"torch", "transformers", "datasets", "optuna", "sklearn", "scipy"}


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
