"""The model card of a trained model: a README.md with the front matter that model hubs read, written from plain facts.

What is not known is left out, never made up; the licence is the exception: the card of a model that was made from
another's weights or outputs says that it could not be found. Every text is escaped, so that no name of a file or model
can break a table or the front matter.

    >>> write_card(Path("runs/mine/pretrained"), {
    ...     "teacher": "models/all-MiniLM-L6-v2",
    ...     "architecture": {"D-A-H-I": "2-12-384-512", "parameters": 13_817_088},
    ...     "why": "least error under a third of the teacher's latency",
    ...     "quality": [{"model": "this", "Spearman": 0.84}, {"model": "teacher", "Spearman": 0.867}],
    ... })
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subarch.run.records import AgoraSummary, Metrics, Parity
from subarch.tasks import Examples

# Heading of each section by the fact it shows, in the order of the card
SECTIONS = {
    "task": "Task",
    "file": "The file",
    "parity": "Compared with PyTorch",
    "compared": "Compared on",
    "architecture": "Architecture",
    "why": "Why this architecture",
    "data": "Data",
    "loss": "Loss",
    "training": "Training",
    "agora": "Agora",
    "cost": "Cost of the training",
    "quality": "Measured quality",
    "labels": "Against labels",
    "dimensions": "Dimensions",
    "latency": "Measured latency",
}


@dataclass(frozen=True, slots=True)
class Use:
    """What a kind of model is called, the library and the tag that hubs sort it by, and the code that loads it."""

    words: str
    library: str
    tag: str
    code: str


_PAIR = '{"text": "One text.", "text_pair": "Another one."}'


def _classifier(words: str, text: str, more: str = "") -> Use:
    code = f"""from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/folder"{more})
print(classify({text}))"""
    return Use(words, "transformers", "text-classification", code)


USES = {
    "encoder": Use(
        "encoder of tokens",
        "transformers",
        "feature-extraction",
        """from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModel.from_pretrained("path/to/this/folder")
vectors = model(**tokenizer(["One text."], return_tensors="pt")).last_hidden_state""",
    ),
    "sentence": Use(
        "sentence encoder",
        "sentence-transformers",
        "sentence-similarity",
        """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
embeddings = model.encode(["One sentence.", "Another one."])""",
    ),
    "masked": Use(
        "masked language model",
        "transformers",
        "fill-mask",
        """from transformers import pipeline

fill = pipeline("fill-mask", model="path/to/this/folder")
print(fill(f"One word is {fill.tokenizer.mask_token}."))""",
    ),
    "classification": _classifier("text classifier", '"One text."'),
    "pair": _classifier("classifier of pairs of texts", _PAIR),
    "regression": _classifier("text regression", '"One text."', ', function_to_apply="none"'),
    "pair regression": Use(
        "cross-encoder that gives a pair of texts a number, such as a query and a document",
        "sentence-transformers",
        "text-ranking",
        """from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder")
print(model.predict([("One text.", "Another one.")]))
print(model.rank("A query.", ["One document.", "Another one."]))""",
    ),
    "tagging": Use(
        "tagger of words",
        "transformers",
        "token-classification",
        """from transformers import pipeline

tag = pipeline("token-classification", model="path/to/this/folder", aggregation_strategy="first")
print(tag("One text."))""",
    ),
    "choice": Use(
        "multiple-choice model",
        "transformers",
        "multiple-choice",
        """from transformers import AutoModelForMultipleChoice, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForMultipleChoice.from_pretrained("path/to/this/folder")
choices = ["One choice.", "Another one."]
inputs = tokenizer(["The text, the question."] * 2, choices, truncation=True, padding=True, return_tensors="pt")
print(choices[model(**{name: value[None] for name, value in inputs.items()}).logits.argmax()])""",
    ),
}


def write_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write README.md into the folder of a model in stock format.

    Args:
        folder: the model; its name is the title.
        facts: any of `use` (a key of `USES`; without it `modules.json` in the folder tells a sentence encoder from a
            masked language model), `exported`, `encoder` and `teacher` (folders of the model that this is a file of, of
            that which was trained further, and of that which was imitated), `code` (what loads it, else that of the
            use), `tags`, the keys of `SECTIONS`, and `limits`. A text is shown as a paragraph, a mapping as a
            table of two columns, a list of mappings as a table with the union of their keys, any other list as points.
            None, and what is empty, is left out.
    """
    (folder / "README.md").write_text(card(folder, facts), encoding="utf-8")


def card(folder: Path, facts: Mapping[str, Any]) -> str:
    """The text of the card; arguments as those of `write_card`."""
    import yaml
    from huggingface_hub import ModelCardData

    exported, encoder, teacher = (
        Path(facts[role]).absolute() if facts.get(role) else None for role in ("exported", "encoder", "teacher")
    )
    sources = [source for source in (exported, encoder, teacher) if source]
    licences = {source: carried_licence(source) for source in sources}
    use = USES[facts.get("use") or ("sentence" if (folder / "modules.json").is_file() else "masked")]
    data = ModelCardData(
        base_model=sources[0].name if sources else None,
        library_name=use.library,
        pipeline_tag=use.tag,
        tags=["subarch", *(["distillation"] if teacher else []), *facts.get("tags", ())],
        **_front_licence(list(licences.values())),
    )

    origin = [f"exported from {_called(exported)}"] if exported else []
    origin += [f"fine-tuned from {_called(encoder)}"] if encoder else []
    origin += [f"a student of {_called(teacher)}"] if teacher else []
    blocks = [f"# {_inline(folder.absolute().name)}"]
    blocks += [f"A {use.words}, {', '.join(origin) or 'trained without a teacher'}; made with subarch."]
    for key, heading in SECTIONS.items():
        if facts.get(key):
            blocks += [f"## {heading}", _shown(facts[key])]
    blocks += ["## How to load", f"```python\n{facts.get('code') or use.code}\n```"]
    limits = facts.get("limits") or ()
    blocks += ["## Limits", _points([*limits, "On text unlike its training text nothing is known; measure first."])]
    blocks += ["## Licence", *_licence_in_words(licences)]
    # in ASCII: some line ends beyond it come back as spaces
    head = yaml.safe_dump(data.to_dict(), sort_keys=False)  # type: ignore[no-untyped-call]
    return f"---\n{head}---\n\n" + "\n\n".join(blocks) + "\n"


def carried_licence(teacher: Path) -> dict[str, Any]:
    """What the front matter of the teacher's own card says of its licence: `license`, `license_name`, `license_link`.

    Empty if there is no card, or none that says it in a way that can be read.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HfHubHTTPError
    from yaml import YAMLError

    try:
        said = ModelCard.load(teacher / "README.md", ignore_metadata_errors=True).data.to_dict()
    # A stranger's file, and not what the user came for
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, YAMLError, HfHubHTTPError):
        return {}
    return {key: said[key] for key in ("license", "license_name", "license_link") if _is_text(said.get(key))}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (bool(value) and isinstance(value, list) and all(map(_is_text, value)))


def _front_licence(licences: list[dict[str, Any]]) -> dict[str, Any]:
    """That which all sources name; where they differ, or one names none, no single one can be claimed."""
    if all(one == licences[0] for one in licences) and all(licences):
        return dict(licences[0]) if licences else {}
    return {"license": "other", "license_name": "several" if all(licences) else "unknown"}


def _licence_in_words(licences: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    """A paragraph for each source."""
    paragraphs = []
    for source, licence in licences.items():
        name = _called(source)
        said = "; ".join(f"{key.replace('_', ' ')}: {_value(value)}" for key, value in licence.items())
        paragraphs.append(
            f"Carried over from {name}, from whose weights or outputs this model was made: {said}."
            if licence
            else f"Unknown: the folder of {name}, from whose weights or outputs this model was made, has no card that "
            "names a licence. Find out before you pass this model on."
        )
    return paragraphs or [
        "No other model's weights or outputs went into this one; the licence is its maker's to choose."
    ]


def _called(model: Path) -> str:
    """The name of a folder; one that a stage named has its run's after it: "pretrained" alone would say nothing."""
    run = model.parent.parent if model.parent.name == "finetuned" else model.parent
    by_stage = model.parent.name == "finetuned" or model.name in ("pretrained", "selected")
    return _inline(f"{model.name} ({run.name})" if by_stage else model.name)


def _shown(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return _table([{"": key, " ": value} for key, value in fact.items() if value is not None])
    if isinstance(fact, list | tuple):
        return _table(fact) if all(isinstance(row, Mapping) for row in fact) else _points(fact)
    return _value(fact)


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[_inline(column) for column in columns], ["---"] * len(columns)]
    lines += [[_value(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _points(items: Iterable[Any]) -> str:
    return "\n".join(f"- {_value(item)}" for item in items)


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    return _inline(value)


def _inline(text: Any) -> str:
    """One line of Markdown that reads as the text does."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return re.sub(r"([\\`*\[\]<>|#~&])", r"\\\1", line)


# Fine-tuned models

MOST_LABELS = 30
"""Labels up to which they are all named."""


def facts_of(encoder: Path, heldout: Examples, result: Metrics) -> dict[str, Any]:
    """The facts of a card, as `write_card` takes them.

    Args:
        encoder: folder of the model that was fine-tuned.
        heldout: the examples that the scores are of.
        result: the finished fine-tuning.
    """
    task, data, config = heldout.task, result.data, result.config
    chosen = next(row for row in result.fits if row.name == result.chosen)
    pair = task.head in ("classification", "regression") and heldout[0].pairs()[0][1] is not None
    use = {"classification": "pair", "regression": "pair regression"}[task.head] if pair else task.head
    told = {"name": task.name, "type": task.kind, "metric": result.metric}
    if task.labels:
        named = len(task.labels) <= MOST_LABELS
        told["labels"] = ", ".join(task.labels) if named else f"{len(task.labels):,}, from {task.labels[0]} on"
    counted = {
        f"examples, {words}": f"{part.rows:,} in {part.groups:,} groups"
        for part, words in ((data.train, "training"), (data.dev, "dev"), (data.heldout, "held out"))
    }
    settings = ("learning_rate", "weight_decay", "warm_up", "batch_size", "dropout", "seed")
    training: dict[str, Any] = {name.replace("_", " "): getattr(chosen, name) for name in settings}
    training |= {"epochs": f"{chosen.epochs} at most, the weights of epoch {chosen.epoch}"}
    if result.teacher and not result.agora:
        training["distillation"] = "soft targets of the teacher and labels"
    return {
        "use": use,
        "encoder": encoder,
        "teacher": config["teacher"],
        "task": told,
        "data": {"source": _name(config["data"]), "division": data.division, **counted},
        "training": training,
        "agora": _agora(result.agora, data.train.rows) if result.agora else None,
        "cost": {
            "trainings": result.cost.trainings,
            "examples seen": result.cost.examples_seen,
            "minutes": round(result.cost.seconds / 60, 1),
            "threads": config["threads"] or result.machine.cores.usable,
            "processor": result.machine.processor,
        },
        "quality": _quality(result),
        "limits": _limits(result),
    }


def _name(source: str) -> str:
    """A source without where it lies on this machine."""
    return source if source.startswith("datasets:") else Path(source).name


def _agora(told: AgoraSummary, rows: int) -> dict[str, Any]:
    return {
        "iterations": told.iterations,
        "pruning": told.pruning,
        "ended because": told.stopped,
        "examples": f"{told.examples:,}, of them {told.examples - rows:,} made, labelled by the teacher",
    }


def _quality(result: Metrics) -> list[dict[str, Any]]:
    """A row for each metric, on the part held out."""
    heldout, teacher = result.heldout, result.teacher
    several = len(heldout.seeds) > 1
    rows = []
    for name, value in heldout.scores.items():
        row: dict[str, Any] = {"held out": name.replace("_", " "), "this model": value}
        if several:
            row |= {
                f"mean of {len(heldout.seeds)} seeds": heldout.mean[name],
                "standard deviation": heldout.deviation[name],
            }
        if teacher:
            row["teacher"] = teacher.heldout[name]
        if name == "accuracy" and result.data.heldout.majority_share is not None:
            row["always the most frequent"] = result.data.heldout.majority_share
        rows.append(row)
    return rows


def _limits(result: Metrics) -> list[str]:
    config, truncated = result.config, result.data.truncated
    cut = f"; {truncated:.1%} of the training examples were longer" if truncated else ""
    limits = [
        f"Reads at most {config['max_length']} tokens{cut}.",
        "Scored on the part held out of its own data only, once, when all was chosen.",
    ]
    for where, count in (result.data.overlaps or {}).items():
        where = where.replace(" in ", " examples are also in ")
        limits.append(f"{count:,} {where}, so scores overestimate the quality on new data.")
    if len(result.heldout.seeds) == 1:
        limits.append("Trained with one seed: how far another would differ is not known.")
    if result.teacher and result.teacher.objection:
        limits.append(f"Its teacher was not adequate: {result.teacher.objection}.")
    return limits


# Exported models

_RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
_EXPORT_USES = {"masked-lm": "masked"}

_EMBED = """import subarch

model = subarch.load_model("path/to/this/folder", threads=1)
embeddings = model.encode(["One sentence.", "Another one."])"""

_RUN = """from pathlib import Path

from subarch.exporting.runtimes import open_export
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
run = open_export(Path("path/to/this/folder"), threads=1)
inputs = tokenizer({texts}, padding=True, truncation=True, return_tensors="np")
print(run({inputs})["{output}"])"""


def facts_of_export(model: Path, record: Parity) -> dict[str, Any]:
    """The facts of the card of an exported folder, as `write_card` takes them. `model`: what was exported."""
    quantized = record.variant.removeprefix(record.runtime).lstrip("-")
    one = (
        '["The text, the question."] * 2, ["One choice.", "Another one."]'
        if record.head == "choice"
        else '["One text."]'
    )
    inputs = "{name: value[None] for name, value in inputs.items()}" if record.head == "choice" else "dict(inputs)"
    code = _EMBED if record.head == "sentence" else ""
    code = code or _RUN.format(texts=one, inputs=inputs, output=record.outputs[-1])
    rows: list[dict[str, Any]] = [
        {
            "output": name,
            "worst cosine": f"{like.worst_cosine:.6f}",
            "mean": f"{like.mean_cosine:.6f}",
            "largest difference": f"{like.difference:.2g}",
            "same answer": None if like.agreement is None else f"{like.agreement:.1%}",
        }
        for name, like in record.likeness.items()
    ]
    task = record.task
    if task is not None and task.metric is not None:
        rows.append({"output": f"{task.metric} of {task.name}", "PyTorch": task.pytorch, "this file": task.exported})
    machine = record.machine
    features = machine.features if isinstance(machine.features, str) else ", ".join(machine.features)
    prefix = (
        [f"Put {record.prefix!r} before every text, where the program that loads it does not."] if record.prefix else []
    )
    return {
        "use": _EXPORT_USES.get(record.head, record.head),
        "exported": model,
        "code": code,
        "tags": [record.runtime, *([quantized] if quantized else [])],
        "file": {
            "runtime": f"{_RUNTIMES[record.runtime]} {record.versions.get(_PACKAGES[record.runtime], '')}".strip(),
            "quantised": quantized or "no",
            "megabytes": sum(file.bytes for file in record.files.values()) / 1e6,
            "inputs": list(record.inputs),
            "outputs": list(record.outputs),
        },
        "parity": rows,
        "compared": {
            "text": record.text.source,
            "sequences": record.sequences,
            "tokens": record.tokens,
            "processor": machine.processor,
            "its instructions": features,
        },
        "limits": [
            f"Reads at most {record.max_length} tokens.",
            *prefix,
            "Compared with PyTorch on that processor only"
            + ("; int8 computes differently on one with other instructions." if "int8" in quantized else "."),
        ],
    }
