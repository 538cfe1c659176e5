"""The task of telling a docstring's package: nothing of the corpus, no names, few examples of a module."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from subarch.demo import docstrings
from subarch.demo.docstrings import scattered, write_task
from subarch.errors import InvalidCorpus
from subarch.text.read import identity

FILLER = "four five six seven eight nine ten eleven twelve"


def write_package(folder: Path, modules: dict[str, list[str]]) -> None:
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, texts in modules.items():
        functions = (f'def function_{n}():\n    r"""{text}"""\n' for n, text in enumerate(texts))
        (folder / f"{name}.py").write_text("".join(functions))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages in a folder that is searched, and a corpus that has one of their paragraphs."""
    folder = tmp_path / "installed"
    folder.mkdir()
    alpha = {f"module_{m}": [f"Part {m} and {n}: {FILLER} more and more." for n in range(6)] for m in range(5)}
    write_package(folder / "alphapack", alpha)
    beta = {
        "names": [f"An alphapack, a BetaPack's, betapack.thing and np.array {FILLER} more words."],
        "short": ["It has but a few words of prose.", f"betapack {' '.join(['betapack'] * 20)}"],
        "corpus": [f"What it has: {FILLER}.", f"What it has: {FILLER}.\n\n    New are they: {FILLER} too."],
        "copies": [f"New are they {FILLER}, too!", f"A copied text {FILLER}."],
        "copies_again": [f"A copied text, {FILLER}."],
    }
    write_package(folder / "betapack", beta)
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": f"What IT has {FILLER}"}) + "\n")
    monkeypatch.syspath_prepend(folder)
    return tmp_path


def made(folder: Path) -> list[dict[str, str]]:
    path = folder / "examples.jsonl"
    counts = write_task(("alphapack", "betapack"), folder / "corpus.jsonl", path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert counts == Counter(row["package"] for row in rows)
    assert not list(folder.glob(".*"))
    return rows


def test_names_known_text_and_short_ones_are_left_out(installed: Path) -> None:
    rows = [row for row in made(installed) if row["package"] == "betapack"]
    assert len(rows) == 3
    modules = {identity(row["text"]): row["module"] for row in rows}
    assert modules.pop(identity(f"An a and {FILLER}")) == "betapack.names"
    # of copies only one; what the corpus has is left out of a text that says more
    assert set(modules) == {identity(f"New are they {FILLER}"), identity(f"A copied text {FILLER}")}


def test_a_module_gives_few_examples_and_a_package_not_too_many(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha = [row for row in made(installed) if row["package"] == "alphapack"]
    per_module = Counter(row["module"] for row in alpha)
    assert per_module == {f"alphapack.module_{m}": 4 for m in range(5)}
    monkeypatch.setattr(docstrings, "EXAMPLES", 7)
    fewer = [row for row in made(installed) if row["package"] == "alphapack"]
    assert fewer == alpha[:7]


def test_an_example_is_so_many_words_and_names_do_not_count(installed: Path) -> None:
    texts = [row["text"] for row in made(installed)]
    assert {len(text.split()) for text in texts} == {12}
    assert f"An a and {FILLER}" in texts


def test_where_packages_lie_changes_nothing_and_the_order_is_not_that_of_names(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, modules = made(installed), [one.module for one in scattered("alphapack")]
    assert modules != sorted(modules)
    assert Counter(modules) == {f"alphapack.module_{m}": 6 for m in range(5)}
    (installed / "installed").rename(installed / "elsewhere")
    monkeypatch.syspath_prepend(installed / "elsewhere")
    assert made(installed) == rows
    assert list(scattered("not_installed_anywhere")) == []


def test_without_a_corpus_there_is_no_task(installed: Path) -> None:
    with pytest.raises(InvalidCorpus, match=r"nowhere\.jsonl"):
        write_task(("alphapack",), installed / "nowhere.jsonl", installed / "examples.jsonl")
    assert not (installed / "examples.jsonl").exists()
