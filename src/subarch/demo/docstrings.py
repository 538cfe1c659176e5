"""The docstrings of installed packages, which are on every machine: a corpus, and pairs to search.

Packages are found without importing them and their files are parsed with `ast`, never run. The next docstring always
comes from the package that has given least so far: a small package gives all it has, the large ones share the rest.
`prose` keeps the prose of a docstring; it is a heuristic over the habits of Google, NumPy and reST docstrings.

    >>> found = list(collect(["scipy", "sympy"], limit_bytes=1_000_000))
    >>> write_corpus(found, Path("docstrings.jsonl"))
    >>> retrieval_pairs(found)[0]
    ('Removes empty values in a dict recursively', 'This ensures we remove values that Meson could not provide ...')
"""

from __future__ import annotations

import ast
import heapq
import importlib.util
import inspect
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from subarch.errors import InvalidCorpus
from subarch.run.files import replaced_file
from subarch.text.read import clean, identity

_TESTS = {"tests", "test"}
_SHORTEST_QUERY, _SHORTEST_DOCUMENT = 4, 8  # words
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring without its indentation; `name` is the dotted name of its module, class or function."""

    package: str
    module: str
    name: str
    text: str


def collect(packages: Sequence[str], *, limit_bytes: int) -> Iterator[Docstring]:
    """Docstrings of installed packages, in an order that depends on nothing but the files, up to `limit_bytes`.

    Files come in sorted order, without tests; a text that was seen before (but for case and punctuation) is left
    out. The limit counts UTF-8 bytes of docstring text and is passed by the last docstring at most.

    Raises:
        InvalidCorpus: at once, where a package is not installed or has no Python source.
    """
    roots = {package: _roots(package) for package in dict.fromkeys(packages)}
    found = ", ".join(package for package, paths in roots.items() if paths) or "none"
    missing = [package for package, paths in roots.items() if not paths]
    if missing or not roots:
        raise InvalidCorpus(
            f"packages not installed, or without Python source: {', '.join(missing) or 'none named'}; found: {found}. "
            "Install them or leave them out (top-level import names are wanted, sklearn and not scikit-learn)"
        )
    return _fairly(roots, limit_bytes)


def write_corpus(docstrings: Iterable[Docstring], path: Path) -> None:
    """Write the prose as JSONL, one record a paragraph: `text`, and the package as `group`. Atomic."""
    with replaced_file(path) as partial, partial.open("wb") as file:
        for docstring in docstrings:
            for paragraph in prose(docstring.text):
                line = json.dumps({"text": paragraph, "group": docstring.package}, ensure_ascii=False) + "\n"
                file.write(line.encode())


def retrieval_pairs(docstrings: Iterable[Docstring]) -> list[tuple[str, str]]:
    """(query, document): a docstring's first line, and the prose of the rest.

    A pair needs 4 words of query and 8 of document; a query or document that came before, and a document that holds
    its query, give none. Hold whole packages out and give those only: pairs of the packages trained on measure memory.
    """
    pairs: list[tuple[str, str]] = []
    queries, documents = set[int](), set[int]()
    for docstring in docstrings:
        first, _, rest = docstring.text.partition("\n")
        query = next(iter(prose(first)), "")
        document = " ".join(prose(rest))
        if len(query.split()) < _SHORTEST_QUERY or len(document.split()) < _SHORTEST_DOCUMENT:
            continue
        if query.rstrip(".").casefold() in document.casefold():
            continue
        if identity(query) in queries or identity(document) in documents:
            continue
        queries.add(identity(query))
        documents.add(identity(document))
        pairs.append((query, document))
    return pairs


def _roots(package: str) -> list[Path]:
    """Folders of a package (several for a namespace package) or the file of a module; none where it is absent.

    `find_spec` of a name with a dot would import the parent, so such names are never looked up.
    """
    if not package.isidentifier():
        return []
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # __main__, and modules made by hand, have no spec
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(location) for location in spec.submodule_search_locations if Path(location).is_dir()]
    return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []


def _fairly(roots: dict[str, list[Path]], limit_bytes: int) -> Iterator[Docstring]:
    streams = {package: _of_package(package, paths) for package, paths in roots.items()}
    given = [(0, package) for package in streams]  # a heap: least first
    seen: set[int] = set()
    total = 0
    while given and total < limit_bytes:
        size, package = given[0]
        docstring = next(streams[package], None)
        if docstring is None:
            heapq.heappop(given)
        elif (key := identity(docstring.text)) not in seen:
            seen.add(key)
            length = len(docstring.text.encode())
            heapq.heapreplace(given, (size + length, package))
            total += length
            yield docstring


def _of_package(package: str, roots: list[Path]) -> Iterator[Docstring]:
    for root in roots:
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            parts = path.relative_to(root).with_suffix("").parts if path != root else ()
            if _TESTS.intersection(parts) or path.name.startswith("test_") or path.name == "conftest.py":
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # invalid escapes in other people's strings
                    tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                # templates, other Python versions, deep nesting (ast reports a full parser stack as MemoryError)
                continue
            yield from _of_tree(package, ".".join((package, *(part for part in parts if part != "__init__"))), tree)


def _of_tree(package: str, module: str, tree: ast.Module) -> Iterator[Docstring]:
    """In the order of the source. Only statements are visited; a stack, as an elif chain nests without bound."""
    waiting: list[tuple[str, ast.AST]] = [(module, tree)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, (ast.Module, *_DOCUMENTED)):
            text = ast.get_docstring(node, clean=False)
            if text and (text := inspect.cleandoc(text.encode(errors="ignore").decode())):
                yield Docstring(package, module, name, text)
        statements = (
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case))
        )
        inside = [(f"{name}.{child.name}" if isinstance(child, _DOCUMENTED) else name, child) for child in statements]
        waiting.extend(reversed(inside))


_RULE = re.compile(r"^\s*([-=~^*#+_`\"'.:])\1{2,}[-=+ ]*$")
_TABLE = re.compile(r"^\s*(\||\+[-=]{2,}|={2,}\s+={2,}|-{2,}\s+-{2,})")
_CODE = re.compile(r"^\s*(>>>|\.\.\. |\.\.\.$|In \[\d+\]|Out\[\d+\]|\$ |%|@)")
# directives with prose inside; what is inside any other is left out
_ADMONITION = re.compile(
    r"^\.\. (note|warning|tip|hint|important|caution|attention|danger|admonition|deprecated|"
    r"versionadded|versionchanged|rubric|topic|seealso)::"
)
_FIELD = re.compile(
    r"^(:(param|parameter|arg|argument|keyword|raises?|returns?|yields?|var|ivar|cvar)\b[^:]*:|@\w+ ?\w*:)\s*"
)
_TYPE_FIELD = re.compile(r"^:(type|rtype|vartype|meta|class|func|mod)\b[^:`]*:(?!`)")
_GOOGLE = re.compile(r"^[*`\w.]+(\s*\([^()]*(\([^()]*\)[^()]*)*\))?(:| --)\s+(?=\S)")
_NUMPY = re.compile(r"^[*`\w.]+(, ?[*`\w.]+)* : ")
# only where a deeper line follows
_TERM = re.compile(r"^[*`\w.\[\]{}|, '\"-]+ ?:( .*)?$|^[*`\w.\[\]]+(, ?[*`\w.\[\]]+)*$|^[*`\w.]+ \(.*\):$")
_BULLET = re.compile(r"^([-*+•]|\(?\w{1,2}[.)]|\[\w+\]_?|\.\. \[\w+\])\s+")
_ROLE = re.compile(r":[\w:+-]+:`~?([^`<]*?)\s*(<[^`]*>)?`")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)|`([^`<]+) <[^`]*>`_{0,2}")
_WORD = re.compile(r"^[(\"'“]?[^\W\d_]+(['’-][^\W\d_]+)*[)\"'”]?[.,;:!?]*[)\"'”]?$")


def prose(text: str) -> list[str]:
    """The paragraphs of prose of a docstring, each on one line and without markup.

    Left out: doctests, code, tables, headings, names and types of parameters (their descriptions stay), and
    what has fewer than three words or is not mostly words.
    """
    paragraphs = (" ".join(lines) for lines in _paragraphs(text.expandtabs().split("\n")))
    return [paragraph for paragraph in map(_unmarked, paragraphs) if _is_prose(paragraph)]


def _unmarked(text: str) -> str:
    text = _LINK.sub(lambda match: match[1] or match[2], _ROLE.sub(r"\1", text))
    return clean(re.sub(r"``?|\*\*|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)|(?<=\w)_(?= |$)| ?\[\w+\]_(?!\w)", "", text))


def _is_prose(text: str) -> bool:
    words = text.split()
    plain = sum(bool(_WORD.match(word)) for word in words)
    return len(words) >= 3 and plain >= 0.6 * len(words)


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines that belong together; a change of kind, a step back in indentation or an item starts another."""
    current: list[str] = []
    indent = 0  # of the current paragraph
    skipped: int | None = None  # inside code: lines indented deeper than this are left out
    fenced = doctest = False
    for number, raw in enumerate(lines):
        line = raw.strip()
        depth = len(raw) - len(raw.lstrip())
        following = lines[number + 1] if number + 1 < len(lines) else ""
        fence = line.startswith(("```", "~~~"))
        fenced ^= fence
        doctest = bool(line) and (doctest or line.startswith(">>>"))
        if skipped is not None and line and depth <= skipped:
            skipped = None
        left_out = fence or fenced or doctest or skipped is not None or not line or _is_markup(line, following)
        if line.startswith("..") and skipped is None and not _ADMONITION.match(line) and not _BULLET.match(line):
            left_out, skipped = True, depth
        admonition = _ADMONITION.match(line)
        entry = _NUMPY.match(line) or (_TERM.match(line) and _is_deeper(following, depth))
        item = _BULLET.match(line) or _FIELD.match(line) or _GOOGLE.match(line)
        if current and (left_out or admonition or entry or item or depth < indent):
            yield current
            current = []
        if left_out or entry or admonition:
            continue
        if not current:
            indent = depth
            line = _GOOGLE.sub("", _FIELD.sub("", _BULLET.sub("", line)))
        if line.endswith("::"):
            line, skipped = line[:-1], depth
        if line:
            current.append(line)
    if current:
        yield current


def _is_deeper(line: str, depth: int) -> bool:
    return bool(line.strip()) and len(line) - len(line.lstrip()) > depth


def _is_markup(line: str, following: str) -> bool:
    """A rule, a heading above one, a row of a table, a line of code, a type."""
    return bool(
        _RULE.match(line)
        or _RULE.match(following)
        or _TABLE.match(line)
        or _CODE.match(line)
        or _TYPE_FIELD.match(line)
    )
