"""What is a ModernBERT's start worth? One is trained, then candidates inherit from it; nothing of them is trained.

    python -m benchmarks.studies.modernbert --out runs/modernbert

No ModernBERT is small enough to be trained by others and shipped here, so one of 6-4-256-384 (window 16) is distilled
from all-MiniLM-L6-v2 on the prose in ../shared/data/corpora: 400 steps of 16 sequences of up to 32 tokens, some four
minutes of one core. It is left in OUT/teacher, a folder like any teacher's, and trained once. Then the cosine distance
of its embeddings to those of candidates of other sizes, on held-out text: with the queries and keys of other head sizes
as inherited, merged as if nothing turned, and left out; and with kept layers that see as their place says, or as they
did. The last line is JSON.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from unittest.mock import patch

import torch
from benchmarks.runner import command_line, show
from benchmarks.studies.rank_agreement import configuration
from torch import Tensor
from torch.nn.functional import cosine_similarity

from subarch.extraction.estimate import estimate
from subarch.extraction.trial import Settings
from subarch.extraction.workbench import Workbench
from subarch.models.inherit import CALIBRATION, Anatomy, inherit
from subarch.models.parts import layers_of
from subarch.models.reduce import truncate
from subarch.models.student import Blueprint, Student, hand_over
from subarch.models.teacher import Teacher, embed, special_tokens
from subarch.numbers.architecture import Architecture, Inputs

BATCH, RATE, CACHED = 16, 2e-3, 120
"""Sequences a step, learning rate; the first CACHED · 64 sequences are trained on, again and again."""


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/modernbert"))
    parser.add_argument("--source", type=Path, help="what the teacher learns from; default: all-MiniLM-L6-v2")
    parser.add_argument("--corpus", nargs="+", default=["../shared/data/corpora"])
    parser.add_argument("--shape", type=Architecture.parse, default="6-4-256-384")
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    bench = Workbench.open(configuration(arguments.source, arguments.corpus, CACHED), arguments.out)
    folder = arguments.out / "teacher"
    if not folder.is_dir():
        make_teacher(bench, arguments.shape, arguments.steps, folder)
    teacher, corpus = Teacher.load(folder), bench.material.corpus
    assert corpus is not None
    texts = corpus.segments("heldout", bench.material.recipe.max_length - 2).shuffled()[:256]
    sample = corpus.segments("train", bench.material.recipe.max_length - 2).shuffled()[:CALIBRATION]
    anatomy, blueprint, target = Anatomy.examine(teacher, sample), Blueprint.of_teacher(teacher), teacher.embed(texts)

    def start(shape: Architecture) -> Student:
        torch.manual_seed(0)
        return inherit(shape, blueprint, teacher, anatomy)

    def distance(student: Student) -> float:
        own = embed(student.eval(), texts, teacher.tokenizer, teacher.recipe)
        return round(max(0.0, float((1 - cosine_similarity(own, target, dim=-1)).mean())), 4)

    depth, heads, hidden, inner = (getattr(arguments.shape, n) for n in ("depth", "heads", "hidden", "intermediate"))
    constant = float((1 - cosine_similarity(target.mean(0, keepdim=True), target, dim=-1)).mean())
    result: dict[str, dict[str, list[float]]] = {"heads": {}, "sizes": {}, "kinds": {}}
    for count in (heads, 2 * heads, 4 * heads, heads // 2):
        shape, merged = Architecture(depth, count, hidden, inner), "subarch.models.inherit_modern._turned_alike"
        row = [distance(start(shape))]
        for other in (unturned, left_out):
            with patch(merged, other):
                row.append(distance(start(shape)))
        result["heads"][str(shape)] = row
    for h, i in ((3 * hidden // 4, inner), (hidden // 2, inner), (hidden, inner // 3)):
        shape = Architecture(depth, heads, h, i)
        torch.manual_seed(0)
        result["sizes"][str(shape)] = [distance(start(shape)), distance(Student(shape, blueprint))]
    for fewer in range(depth - 1, 1, -1):
        student = start(Architecture(fewer, heads, hidden, inner))
        by_place = distance(student)
        kept = sorted(anatomy.keep[:fewer])
        for layer, index in zip(layers_of(student.encoder), kept, strict=True):
            layer.attention_type = layers_of(teacher.encoder)[index].attention_type
        result["kinds"][" ".join(map(str, kept))] = [by_place, distance(student)]
    columns = {"heads": ["as it is", "unturned", "left out"], "sizes": ["inherited", "scratch"]}
    for name in ("heads", "sizes", "kinds"):
        rows = [[key, *map(str, values)] for key, values in result[name].items()]
        show(name, [name, *columns.get(name, ["by place", "its own"])], rows)
    print(json.dumps({"constant": round(constant, 4)} | result))


def make_teacher(bench: Workbench, shape: Architecture, steps: int, folder: Path) -> None:
    """Distil a ModernBERT from the workbench's teacher, beginning with its token embeddings in fewer dimensions."""
    source = bench.material.start
    assert source is not None
    table = source.encoder.get_input_embeddings().weight
    inputs = Inputs(len(table), 512, 0, source.width, "modernbert", window=16)
    start, end = special_tokens(source.tokenizer)
    ids = dict.fromkeys(("bos_token_id", "cls_token_id"), start) | dict.fromkeys(("eos_token_id", "sep_token_id"), end)
    torch.manual_seed(0)
    settings = ids | {"pad_token_id": source.tokenizer.pad_token_id}
    student = Student(shape, Blueprint("modernbert", inputs, source.recipe.pooling, settings=settings))
    with torch.no_grad():
        u, s, _ = torch.linalg.svd(table - table.mean(0), full_matrices=False)
        student.encoder.get_input_embeddings().weight.copy_((u * s)[:, : shape.hidden])
    estimate(student, bench.signal, Settings(steps, RATE, BATCH))
    tokenizer = copy.deepcopy(source.tokenizer)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    hand_over(student, tokenizer, bench.material.recipe, folder)


def unturned(query: Tensor, key: Tensor, heads: int, size: int) -> tuple[Tensor, Tensor]:
    """As BERT's heads are merged, as if positions turned nothing."""
    return filled(truncate(query, key, size), size)


def left_out(query: Tensor, key: Tensor, heads: int, size: int) -> tuple[Tensor, Tensor]:
    """Attention to all tokens alike."""
    return filled((query[:0], key[:0]), size)


def filled(pair: tuple[Tensor, Tensor], size: int) -> tuple[Tensor, Tensor]:
    first, second = (torch.cat([one, one.new_zeros(size - len(one), one.shape[1])]) for one in pair)
    return first, second


if __name__ == "__main__":
    main()
