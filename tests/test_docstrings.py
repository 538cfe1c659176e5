"""Docstrings: found without import, shared out fairly, prose kept and markup left out, honest retrieval pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subarch.demo.docstrings import Docstring, collect, prose, retrieval_pairs, write_corpus
from subarch.errors import InvalidCorpus
from subarch.text.read import identity, read

BOMB = "raise RuntimeError('imported')\n"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three packages that cannot be imported: `big_one` (many docstrings), `small_one` (two), `lone_module`."""
    big, small = tmp_path / "big_one", tmp_path / "small_one"
    for folder in (big / "tests", big / "inner", small):
        folder.mkdir(parents=True)
    (big / "__init__.py").write_text(f'"""All about big things."""\n{BOMB}')
    body = "".join(
        f'def function_{n}():\n    """Explain the function of the number {n} at length."""\n' for n in range(100)
    )
    (big / "inner" / "many.py").write_text(f"{BOMB}{body}")
    (big / "inner" / "broken.py").write_text("def (:")
    (big / "inner" / "nul.py").write_bytes(b'"""text"""\0')
    (big / "tests" / "test_it.py").write_text('"""Never wanted from the tests."""')
    (small / "__init__.py").write_text('"""All about Big things!"""\n')  # a duplicate but for case and punctuation
    (small / "nested.py").write_text(
        "class Outer:\n"
        '    """The outer class has words."""\n'
        "    if True:\n"
        "        def method(self):\n"
        '            r"""The method has an \\odd escape."""\n'
        "            def closure():\n"
        '                "The closure has \\ud800 a surrogate."\n'
    )
    (tmp_path / "lone_module.py").write_text(f'"""A module that stands alone."""\n{BOMB}')
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_names_and_texts(packages: Path) -> None:
    found = list(collect(["big_one", "small_one", "lone_module"], limit_bytes=10**6))
    names = {docstring.name: docstring.text for docstring in found}
    assert names["big_one"] == "All about big things."
    assert names["big_one.inner.many.function_7"] == "Explain the function of the number 7 at length."
    assert names["small_one.nested.Outer.method"] == "The method has an \\odd escape."
    assert names["small_one.nested.Outer.method.closure"] == "The closure has  a surrogate."
    assert names["lone_module"] == "A module that stands alone."
    assert len(found) == len(names) == 1 + 100 + 3 + 1
    assert not {"big_one", "small_one", "lone_module"} & set(sys.modules)


def test_the_limit_is_shared_fairly_and_kept(packages: Path) -> None:
    found = list(collect(["big_one", "small_one"], limit_bytes=1000))
    sizes = Counter({"big_one": 0, "small_one": 0})
    for docstring in found:
        sizes[docstring.package] += len(docstring.text.encode())
    longest = max(len(docstring.text.encode()) for docstring in found)
    assert 1000 <= sizes.total() < 1000 + longest
    # the small package gives all it has before the big one takes the rest
    everything = sum(len(d.text.encode()) for d in collect(["small_one"], limit_bytes=10**6))
    duplicate = len("All about Big things!")
    assert sizes["small_one"] == everything - duplicate
    even = Counter(d.package for d in collect(["big_one", "small_one"], limit_bytes=100))
    assert set(even) == {"small_one", "big_one"}


def test_a_missing_package_is_named_with_those_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidCorpus, match=r"no_such_package, os\.path; found: json"):
        collect(["json", "no_such_package", "os.path"], limit_bytes=100)
    with pytest.raises(InvalidCorpus, match="math"):  # without Python source
        collect(["math", "json"], limit_bytes=100)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as a script has it; `python -m pytest` has one
    with pytest.raises(InvalidCorpus, match="__main__"):
        collect(["__main__"], limit_bytes=100)
    with pytest.raises(InvalidCorpus, match="none named"):
        collect([], limit_bytes=100)


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from subarch.demo.docstrings import collect\n"
        "assert next(collect(['torch', 'sympy'], limit_bytes=10)).text\n"
        "assert not {'torch', 'sympy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


NUMPY = """
Compute the thing of :class:`~a.Matrix` and ``b``, which
goes over two lines.

Longer text about the *thing* as in `the manual <https://x.org>`_.

Parameters
----------
x : array_like, shape (n, m)
    The input array, which is
    long.
y : {'a', 'b'}, optional
    The other input.
x1, x2 : int

    Set apart by a blank line.

Returns
-------
out
    What comes out of it.

.. code-block:: python

    this is never kept here

    nor is this line of code

.. note:: x
    A note is prose as well.

Examples
--------
Take a look at this::

    literal block of some code

>>> thing(1)
array of words as output

====== =======
alpha  beta gamma
====== =======

- The first item of a list
  goes on.
- The second item of a list.
"""

GOOGLE = """
Do it with some care.

```python
a fence of code here
```

Args:
    name (str, *optional*, defaults to `None`): The name of the thing
        continued here.
    other (`Config`):
        The config to be used.
    *rest: All that is left over.

:param z: the last one of them
:type z: a kind of number
"""


def test_prose_keeps_descriptions_and_drops_markup() -> None:
    assert prose(NUMPY) == [
        "Compute the thing of a.Matrix and b, which goes over two lines.",
        "Longer text about the thing as in the manual.",
        "The input array, which is long.",
        "The other input.",
        "Set apart by a blank line.",
        "What comes out of it.",
        "A note is prose as well.",
        "Take a look at this:",
        "The first item of a list goes on.",
        "The second item of a list.",
    ]
    assert prose(GOOGLE) == [
        "Do it with some care.",
        "The name of the thing continued here.",
        "The config to be used.",
        "All that is left over.",
        "the last one of them",
    ]


@given(st.text(st.sampled_from("ab *-=.:>`|\n\t_~[]()\x00é\u2028"), max_size=200))
@settings(max_examples=200, deadline=None)
def test_prose_of_anything_is_clean_lines(text: str) -> None:
    for paragraph in prose(text):
        assert len(paragraph.split()) >= 3
        assert paragraph == " ".join(paragraph.split())


def test_write_corpus_is_readable_reproducible_and_atomic(tmp_path: Path) -> None:
    docstrings = [
        Docstring("p", "p", "p", "First paragraph of text.\n\nSecond one is here."),
        Docstring("q", "q", "q", "Übung macht den Meister."),
    ]
    path = tmp_path / "corpus.jsonl"
    write_corpus(docstrings, path)
    assert [(d.text, d.group) for d in read([path])] == [
        ("First paragraph of text.", "p"),
        ("Second one is here.", "p"),
        ("Übung macht den Meister.", "q"),
    ]
    write_corpus(docstrings, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()

    def dies() -> list[Docstring]:
        yield docstrings[0]
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_corpus(dies(), path)
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"corpus.jsonl", "again.jsonl"}


def test_retrieval_pairs() -> None:
    rest = "It takes the matrix apart into several factors of a simple form"
    texts = [
        f"Factorise a square matrix.\n\n{rest}.\n\nParameters\n----------\nx : int\n    The input number.",
        f"Factorise a square matrix!\n\n{rest} and another ending.",  # the query again
        f"Quite another first line.\n\n{rest}.\n\nThe input number.",  # the document again
        f"Too short.\n\n{rest} once more.",
        "A summary with nothing else.\n\nFar too short.",
        f"Give the answer away.\n\n{rest} to give the answer away at once.",
        f"solve(a, b, *, overwrite=False, check=True)\n\n{rest} for the signature.",
    ]
    pairs = retrieval_pairs(Docstring("p", "p", f"p.{n}", text) for n, text in enumerate(texts))
    assert pairs == [("Factorise a square matrix.", f"{rest}. The input number.")]


def test_pairs_of_a_real_package_hold_no_leak() -> None:
    pairs = retrieval_pairs(collect(["scipy"], limit_bytes=200_000))
    assert len(pairs) > 50
    assert len({identity(query) for query, _ in pairs}) == len(pairs) == len({identity(text) for _, text in pairs})
    assert not [pair for pair in pairs if pair[0].rstrip(".").casefold() in pair[1].casefold()]
    assert json.loads(json.dumps(pairs)) == [list(pair) for pair in pairs]
