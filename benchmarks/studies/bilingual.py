"""multilingual-e5-small with the vocabulary of two languages, English and German: cut alone, and as a trained student.

    python -m benchmarks.studies.bilingual --e5 FOLDER --german FOLDER      # goes on where it was stopped

FOLDER of the model: ../shared/data/README.md says how it is made. That of German is where the Debian packages
manpages-de, debian-reference-de and debian-faq-de were unpacked (`apt-get download NAME`, `dpkg -x NAME*.deb FOLDER`).
The message catalogues in /usr/share/locale/de give pairs of an English message and its German translation.

Tokens are counted in the German texts and in ../shared/data/corpora, with half of the weight each, but for what is held
out: a quarter of the German manual pages and an eighth of the messages. Scores, of text with e5's own prompt "query: ":

- STS-B dev, Spearman, in English
- pages: the short description of a held-out German page finds its first paragraph among theirs (MRR)
- messages: held-out German messages find the English ones that they translate (MRR), and the other way round

The students have a third of the layers and are trained on text of both languages to embed as e5 does; they differ in
text, steps and loss. One is timed in turn with e5, in PyTorch on one thread and one text of 32 tokens.

Results are written to benchmarks/results/bilingual.json after each part. The last line is JSON.
"""

from __future__ import annotations

import gettext
import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.runner import Results, command_line, show
from benchmarks.sts import sts_b
from numpy.typing import NDArray

import subarch
from subarch.latency.measuring import measure_models
from subarch.learning.signals import text_embedder
from subarch.models.teacher import Teacher
from subarch.models.vocabulary import cut
from subarch.tasks.scoring import Embed, retrieval
from subarch.text.read import THREE_WORDS, clean, hash64, read
from subarch.text.vocabulary import prune, unwritten, usage

SIZES = (32_000, 16_000, 8_000)
CATALOGUES = Path("/usr/share/locale/de/LC_MESSAGES")
PROMPT = "query: "
SHAPE = "4-12-384-1024-16000"
STUDENTS: dict[str, dict[str, Any]] = {
    SHAPE: {"steps": 1500},
    f"{SHAPE}, also by similarities": {"steps": 1500, "loss_embedding": 1.0, "loss_similarities": 1.0},
    f"{SHAPE}, twice the text and steps": {"steps": 3000, "documents": 16_000},
}
"""Options of their trainings, and how many texts of each language they are trained on, where not `DOCUMENTS`."""
TRAINING: dict[str, Any] = {
    "max_length": 64,
    "batch_tokens": 2048,
    "evaluations": 4,
    "precision": "bf16",
    "learning_rate": 1e-3,
    "targets": "cache",
    "threads": 1,
}
DOCUMENTS = 8_000
WORDS = (5, 60)
"""Of a message that is taken, in both languages."""
LEAST_WORDS = 12
"""Of the paragraph of a page that is to be found; shorter ones say how a program is called."""
_PLACES = re.compile(r"%[-#0-9.*]*(?:\([a-z_]+\))?[a-z]{1,3}|[\x1b{}]")


@dataclass(frozen=True)
class Material:
    """Texts to count tokens in, and pairs of held-out ones."""

    german: list[str]
    english: list[str]
    pages: list[tuple[str, str]]
    messages: list[tuple[str, str]]


def main() -> None:
    parser = command_line(__doc__, "bilingual")
    parser.add_argument("--e5", type=Path, required=True)
    parser.add_argument("--german", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/bilingual"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = material(arguments.german, arguments.data / "corpora")
    teacher = Teacher.load(arguments.e5)
    results = Results(arguments.results)
    results.about(pages=len(found.pages), messages=len(found.messages), german=len(found.german))
    backend = teacher.tokenizer.backend_tokenizer
    counts = [usage(backend, texts) for texts in (found.german, [PROMPT, *found.english])]
    both = sum(1e6 * one / one.sum() for one in counts)
    for size in (len(teacher.tokenizer), *SIZES):
        results.keep("rows", str(size), make=partial(row, teacher, found, both, size, arguments.data))
    for name in STUDENTS:
        run = arguments.out / name.replace(",", "").replace(" ", "-")
        results.keep("trained", name, make=partial(trained, run, arguments.e5, found, **STUDENTS[name]))
        results.keep("rows", name, make=partial(scored, run / "pretrained", found, arguments.data))
    student = arguments.out / SHAPE / "pretrained"
    results.keep("latency", make=lambda: latencies({"teacher": arguments.e5, SHAPE: student}))
    names = ("megabytes", "sts_dev", "pages", "to_english", "to_german", "tokens_german", "unknown_german")
    rows = [[size, *(f"{one[name]:.4g}" for name in names)] for size, one in results["rows"].items()]
    show("multilingual-e5-small", ["tokens", *names], rows)
    print(json.dumps(results))


def row(teacher: Teacher, found: Material, counts: NDArray[np.float64], size: int, data: Path) -> dict[str, float]:
    """Scores and sizes of the teacher with `size` tokens for both languages."""
    return scores(cut(teacher, prune(teacher.tokenizer.backend_tokenizer, counts, size)), found, data)


def scores(made: Teacher, found: Material, data: Path) -> dict[str, float]:
    """Scores and sizes of a model."""
    without = text_embedder(made.model, made)

    def embed(texts: list[str]) -> NDArray[np.float32]:
        return without([PROMPT + text for text in texts])

    to_english, to_german = (mrr(embed, pairs) for pairs in (found.messages, [pair[::-1] for pair in found.messages]))
    heldout = [text for pair in found.pages for text in pair] + [german for german, _ in found.messages]
    tokenizer = made.tokenizer.backend_tokenizer
    used = usage(tokenizer, heldout)
    return {
        "megabytes": sum(value.numel() for value in made.encoder.parameters()) * 4e-6,
        "tokens": len(made.tokenizer),
        "sts_dev": sts_b(data / "tasks" / "STS-B" / "dev.tsv").scores(embed)["spearman"],
        "pages": mrr(embed, found.pages),
        "to_english": to_english,
        "to_german": to_german,
        "tokens_german": float(used.sum() / len(heldout)),
        "unknown_german": unwritten(tokenizer, used),
    }


def scored(folder: Path, found: Material, data: Path) -> dict[str, float]:
    """Scores and sizes of the model in a folder."""
    return scores(Teacher.load(folder), found, data)


def trained(run: Path, e5: Path, found: Material, documents: int = DOCUMENTS, **options: Any) -> dict[str, Any]:
    """Train the student in `run/pretrained`, from e5's weights, on as much text of each language."""
    run.mkdir(parents=True, exist_ok=True)
    corpus = []
    for language, texts in {"de": found.german, "en": found.english}.items():
        file = run / f"{language}.jsonl"
        drawn = random.Random(0).sample(texts, min(documents, len(texts)))
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in drawn), encoding="utf-8")
        corpus.append(f"{language}:0.5={file}")
    options |= {"teacher": str(e5), "prompt": PROMPT, "architecture": SHAPE}
    made = subarch.pretrain(run, corpus=corpus, **options, **TRAINING)
    kept = {key: getattr(made, key) for key in ("architecture", "steps", "tokens", "seconds", "losses")}
    return kept | {"heldout": list(made.heldout)}


def latencies(folders: dict[str, Path]) -> dict[str, Any]:
    """Milliseconds of one text of 32 tokens, in turn."""
    encoders = {name: Teacher.load(folder).encoder for name, folder in folders.items()}
    found = measure_models(encoders, vocabulary=10_000, batch=1, length=32, threads=1, rounds=40)
    return {name: latency.model_dump() for name, latency in found.items()}


def mrr(embed: Embed, pairs: list[tuple[str, str]]) -> float:
    """Mean reciprocal rank of the second text of each pair among all of these, for the first."""
    queries, documents = zip(*pairs, strict=True)
    return retrieval(embed(list(queries)), embed(list(documents)))["mrr"]


def material(german: Path, english: Path) -> Material:
    """The texts of the unpacked packages, of the message catalogues and of the English corpora."""
    texts, held = [], []
    for path in sorted((german / "usr/share/man/de").rglob("*.gz")):
        paragraphs = page(path)
        is_held = hash64(path.name) % 4 == 0
        if not is_held:
            texts += paragraphs
        elif paragraphs and " - " in paragraphs[0]:
            described = [text for text in paragraphs[1:] if len(text.split()) >= LEAST_WORDS]
            held += [(paragraphs[0].split(" - ", 1)[1], text[:400]) for text in described[:1]]
    for path in sorted((german / "usr/share").rglob("*.de.txt.gz")):
        texts += re.split(r"\n\s*\n", gzip.decompress(path.read_bytes()).decode(errors="ignore"))
    pairs = sorted(set(messages()))
    kept = [pair for pair in pairs if hash64(pair[1]) % 8]
    english_texts = [document.text for document in read([english])] + [original for _, original in kept]
    german_texts = [text for text in map(clean, texts) if THREE_WORDS.match(text)] + [one for one, _ in kept]
    unique = {original: (translated, original) for translated, original in pairs if hash64(original) % 8 == 0}
    return Material(german_texts, english_texts, sorted(dict(held).items()), sorted(unique.values()))


def page(path: Path) -> list[str]:
    """Paragraphs of a manual page: its name with a description, then the text, without markup and tables."""
    text = re.sub(r"(?ms)^\.TS.*?^\.TE", "", gzip.decompress(path.read_bytes()).decode(errors="ignore"))
    text = re.sub(r"(?m)^\.(?:[BI]|[BIR]{2}) ", "", text)  # words in bold or italics
    blocks = re.split(r"(?m)^[.'].*$\n?|\n\s*\n", text)
    plain = (re.sub(r"\\f\(..|\\f\[.*?\]|\\f.|\\[&,/|^:%]|\"", "", block.replace(r"\-", "-")) for block in blocks)
    found = (clean(re.sub(r"\\\((?:..)|\\\[.*?\]|\\[a-z]", " ", block)) for block in plain)
    return [block for block in found if THREE_WORDS.match(block)]


def messages() -> Iterator[tuple[str, str]]:
    """(German, English) messages of whole sentences, without the places of their arguments."""
    for path in sorted(CATALOGUES.glob("*.mo")):
        try:
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)
        except UnicodeDecodeError:  # an old one, in another encoding
            continue
        for english, german in catalogue._catalog.items():  # type: ignore[attr-defined]
            if not isinstance(english, str) or "\x04" in english:  # plural forms, and messages with a context
                continue
            pair = clean(_PLACES.sub("", german)), clean(_PLACES.sub("", english))
            if all(WORDS[0] <= len(text.split()) <= WORDS[1] for text in pair) and pair[0] != pair[1]:
                yield pair


if __name__ == "__main__":
    main()
