"""The shape of the package: which folder may import which, and what importing costs.

The layers stand in pyproject.toml, under `tool.importlinter`.
"""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from importlinter import cli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
SOURCES = REPOSITORY / "src"
PACKAGE = SOURCES / "subarch"


def test_folders_import_only_folders_below_them() -> None:
    assert cli.lint_imports(str(REPOSITORY / "pyproject.toml"), no_cache=True) == 0, "run lint-imports"


LIGHT = [
    "",
    ".numbers.space",
    ".models.sentence",
    ".run.machine",
    ".extraction.config",
    ".run.folder",
    ".cli.app",
]


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


def test_modules_open_with_a_docstring() -> None:
    files = PACKAGE.rglob("*.py")
    missing = [file for file in files if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
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
