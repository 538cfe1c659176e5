"""Which package does a docstring come from? A text classification task made from the installed packages.

An example is the first dozen words of a docstring. Paragraphs that are in a given corpus are left out, so that no model
trained on that corpus has read them. Words that name one of the packages are removed. Each example says which module it
comes from: dividing by module keeps neighbouring docstrings, which resemble each other, on one side.

    >>> write_task(("networkx", "torch"), Path("docstrings.jsonl"), Path("package.jsonl"))
    {'networkx': 300, 'torch': 300}
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from subarch.demo.docstrings import Docstring, prose, scattered
from subarch.run.files import write_text
from subarch.text.read import identity, read

EXAMPLES = 300
"""Of a package, at most."""

OF_MODULE = 4
"""Examples from one module at most, so that both sides have many modules and none dominates its class."""

WORDS = 12
"""Of an example. With more, a bag of words comes close to a fine-tuned encoder."""

ALIASES = r"scikit|hugging|\b(nx|np|pd|hf)\b"
"""Other names of the packages."""


def write_task(packages: Sequence[str], corpus: Path, path: Path) -> dict[str, int]:
    """Write the examples as JSONL with the columns `text`, `package` and `module`; returns the number per package.

    The same packages and corpus give the same file on every machine. The file is written atomically.

    Args:
        packages: the classes.
        corpus: JSONL with the column `text`; none of its paragraphs is in any example.

    Raises:
        InvalidCorpus: the corpus cannot be read.
    """
    known = {identity(document.text) for document in read([corpus])}
    names = re.compile("|".join([*map(re.escape, packages), ALIASES]), re.IGNORECASE)
    rows = [row for package in packages for row in _of_package(package, names, known)]
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))
    return dict(Counter(row["package"] for row in rows))


def _of_package(package: str, names: re.Pattern[str], known: set[int]) -> Iterator[dict[str, str]]:
    """The examples of a package; their texts are added to `known`."""
    given: Counter[str] = Counter()
    for docstring in scattered(package):
        if given.total() == EXAMPLES:
            return
        text = _opening(docstring, names, known)
        if given[docstring.module] < OF_MODULE and text and identity(text) not in known:
            known.add(identity(text))
            given[docstring.module] += 1
            yield {"text": text, "package": package, "module": docstring.module}


def _opening(docstring: Docstring, names: re.Pattern[str], known: set[int]) -> str:
    """The first words of the paragraphs that are not known, without package names; "" if there are too few."""
    paragraphs = [paragraph for paragraph in prose(docstring.text) if identity(paragraph) not in known]
    words = [word for word in " ".join(paragraphs).split() if not names.search(word)]
    return " ".join(words[:WORDS]) if len(words) >= WORDS else ""
