"""The documents name only what exists: links, files, modules, names to import, commands and their options."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich_click as click

from subarch.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")])
CONFIGS = sorted(ROOT.glob("configs/*.yaml"))
CODE = sorted(path for folder in ("src", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py"))
FOREIGN = {"--default-prompt-name", "--model-id", "--no-deps", "--nproc-per-node", "--strict", "--use_avg_len"}
"""Options of other programs: pip, torchrun, mypy, the released scripts of Bort."""
OTHERS = {
    "loss_x",
    "datetime_start",
    "reduce_range",
    "model_kwargs",
    "ov_config",
    "specific_model_path",
    "model_file",
    "model_name",
    "file_name",
    "create_pretraining_data",
    "run_pretraining_distillation",
}
"""Names in other programs, and one that could be added."""
GONE = {"--hints", "--loss-x", "benchmarks/hints.py", "benchmarks/search/hinted.py", "create_pretraining_data.py"}
"""Named by the documents as removed, as another program's, or as an example of what could be added."""


def text_of(page: Path) -> str:
    """The page, without the changelog's lists of what was removed."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"(?ms)^### Removed$.*?(?=^##|\Z)", "", text) if page.name == "CHANGELOG.md" else text


def spans(text: str) -> list[str]:
    """What stands between backticks, and the fenced and indented blocks."""
    fenced = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    indented = re.findall(r"(?m)^(?: {4}.*\n?)+", text)
    return [*re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text)), *fenced, *indented]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """(program, options) of the commands of a text: `subarch NAME`, or the module after `python -m`."""
    lines = "\n".join(spans(text)).replace("\\\n", " ").split("\n")
    for line in lines:
        for found in re.finditer(
            r"(?:\bsubarch|python -m) ([a-z][\w.]*)([^`;|#]*)", re.sub(r"torchrun .*-m", "", line)
        ):
            yield found.group(1), re.findall(r"(?<!\S)--[a-z][\w-]*", found.group(2))


def options_of(command: click.Command) -> set[str]:
    names = {name for option in command.params for name in [*option.opts, *option.secondary_opts]}
    return names | {"--help", "--version"}


def arguments_of(module: str) -> set[str]:
    """The options in the source of a benchmark and of the benchmarks' modules that it imports."""
    source = source_of(module).read_text(encoding="utf-8")
    shared = [source_of(name) for name in re.findall(r"^from (benchmarks[\w.]*) import", source, re.M)]
    texts = [source, *(path.read_text(encoding="utf-8") for path in shared if path.exists())]
    return {option for text in texts for option in re.findall(r"\"(--[a-z][\w-]*)\"", text)}


def source_of(module: str) -> Path:
    return (ROOT / module.replace(".", "/")).with_suffix(".py")


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=named)


def test_pages_and_configurations_were_found() -> None:
    assert len(PAGES) > 15
    assert len(CONFIGS) >= 5
    assert {"search.md", "README.md", "by-hand.md"} <= {page.name for page in PAGES}
    shown = {program for page in PAGES for program, _ in commands(text_of(page))}
    assert {"extract", "pretrain", "finetune", "export", "benchmarks.quality"} <= shown


@pages
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    """Python files, by their path from the root, from the package, or from the page; anything in a folder of ours."""
    roots = [ROOT, ROOT / "src/subarch", page.parent]
    ours = re.compile(r"(?:[\w./-]+\.py|(?:src|docs|tests|benchmarks|configs|\.ci)/[\w./*-]+)")
    names = {re.sub("[A-Z]{4,}", "*", name.rstrip(".")) for name in re.findall(ours, text_of(page))}
    missing = {name for name in names if not any(any(root.glob(name)) for root in roots)} - GONE
    assert not missing


@pages
def test_modules_and_names_exist(page: Path) -> None:
    text = text_of(page)
    modules = set(re.findall(r"\bbenchmarks(?:\.[a-z_]+)+", text))
    assert not {
        name for name in modules if not source_of(name).exists() and not source_of(name).with_suffix("").is_dir()
    }
    names = set()
    for span in spans(text):
        names |= set(re.findall(r"(?<![\w/.-])subarch(?:\.[A-Za-z_]+)+", span))
        for imported in re.findall(r"^ *(?:>>> )?(from (?:subarch|benchmarks)[\w.]* import .*)$", span, re.M):
            (statement,) = ast.parse(imported.strip()).body
            assert isinstance(statement, ast.ImportFrom)
            names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
    missing = {name for name in names if not resolves(name)}
    assert not missing


@pages
def test_keys_and_identifiers_occur_in_the_code(page: Path) -> None:
    """Names with an underscore: keys of configurations, fields of records, functions, tensors."""
    code = [path.read_text(encoding="utf-8") for path in CODE if "tests" not in path.parts]
    known = {word for text in code for word in re.findall(r"[A-Za-z]\w*", text)}
    prose = re.sub(r"(?ms)^```.*?^```", "", text_of(page))
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"(?m)^ {4}.*$", "", prose))
    words = {word for span in inline for word in re.findall(r"(?<![\w/.<-])[a-z]+(?:_[a-z]+)+\b", span)}
    missing = words - known - OTHERS
    assert not missing


def resolves(dotted: str) -> bool:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part) and part not in getattr(found, "__dataclass_fields__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=named)
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    text = text_of(page)
    if page.suffix == ".yaml":
        text = re.sub(r"(?m)^# ?", "", text)
    for program, options in commands(text):
        if program.startswith("benchmarks"):
            assert set(options) <= arguments_of(program), program
        elif program == "subarch":
            continue
        elif program in app.commands:
            assert set(options) <= options_of(app.commands[program]), program
        else:
            assert not options, program


@pages
def test_options_exist(page: Path) -> None:
    known = {option for command in app.commands.values() for option in options_of(command)} | FOREIGN
    known |= {option for path in CODE if "benchmarks" in path.parts for option in arguments_of(module_of(path))}
    shown = {option for span in spans(text_of(page)) for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span)}
    missing = shown - known - GONE
    assert not missing


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pages
def test_commands_exist(page: Path) -> None:
    for span in spans(text_of(page)):
        for name in re.findall(r"(?m)^\s*subarch ([a-z]+)\b", span):
            assert name in app.commands, name


def test_code_points_to_pages_that_exist() -> None:
    for path in CODE:
        for name in re.findall(r"\bdocs/[\w-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path}: {name}"
