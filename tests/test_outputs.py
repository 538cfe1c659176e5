"""Teachers of a task: what they say, what students inherit and learn of it, and what is handed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors
from transformers import AutoTokenizer, pipeline

from subarch.errors import InvalidConfig, InvalidCorpus, InvalidTeacher
from subarch.exporting.config import ExportConfig
from subarch.extraction.config import ExtractConfig
from subarch.extraction.question import thetas
from subarch.extraction.verify import verify
from subarch.extraction.workbench import resolved
from subarch.learning.outputs import constant, divergence, gold_of, metric_of, score
from subarch.models.inherit import Anatomy, inherit
from subarch.models.outputs import CLASSES, Outputs, TaskTeacher
from subarch.models.student import Blueprint
from subarch.models.teacher import assemble
from subarch.numbers.architecture import Architecture
from subarch.pipeline import export, extract, pretrain
from subarch.pretraining.pretrain import configure
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Basis
from subarch.text.corpus import build, shortened
from test_families import folder_of
from tiny import tiny_corpus, tiny_sentences, tiny_task_teacher, tiny_teacher

pytestmark = pytest.mark.usefixtures("one_process")
KINDS = ("classes", "labels", "number", "tags", "choices")
FAMILIES = ("bert", "roberta", "modernbert")


def write_inputs(path: Path, kind: str, count: int = 160, label: bool = False) -> Path:
    """Random inputs of a kind, with a label of it or without."""
    texts = tiny_sentences(2 * count)
    labels = {"classes": "yes", "labels": ["long"], "number": 1.5, "choices": 1}
    rows: list[dict[str, Any]] = []
    for first, second in zip(texts[:count], texts[count:], strict=True):
        row: dict[str, Any] = {"text_a": first, "text_b": second}
        if kind == "tags":
            row = {"tokens": first.split()}
        elif kind == "choices":
            row = {
                "text_a": first,
                "choices": [second, " ".join(reversed(second.split())), first][: 2 + len(first) % 2],
            }
        rows.append(row | ({"label": labels[kind]} if label else {}))
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def settings(tmp_path: Path, teacher: Path, corpus: Path, **changes: Any) -> dict[str, Any]:
    space = tmp_path / "space.yaml"
    space.write_text("depth: [1, 3]\nheads: [2]\nhidden: [16, 32]\nintermediate: [24]\n", encoding="utf-8")
    return {
        "teacher": str(teacher),
        "corpus": [str(corpus)],
        "space": str(space),
        "steps": 6,
        "batch_size": [8],
        "learning_rate": [1e-3],  # of tiny models with random weights
        "heldout": 16,
        "cost": "operations",
        "workers": 1,
        "repeats": 0,
    } | changes


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_closed_forms_and_inheritance(tmp_path: Path, kind: str, family: str) -> None:
    """A student of the teacher's own size says what the teacher says, and each has the size that is counted."""
    teacher = TaskTeacher.load(tiny_task_teacher(tmp_path / "teacher", kind, family=family))
    blueprint = Blueprint.of_task(teacher, teacher)
    tokens = [teacher.tokenizer(text, add_special_tokens=False)["input_ids"] for text in tiny_sentences(20)]
    anatomy = Anatomy.examine(teacher, tokens)
    batch = assemble(tokens, teacher.tokenizer, teacher.recipe)
    for shape in (teacher.architecture, Architecture(2, 2, 16, 24), Architecture(1, 2, 32, 24)):
        student = inherit(shape, blueprint, teacher, anatomy).eval()
        found = student(batch.ids, batch.mask)
        assert sum(parameter.numel() for parameter in student.parameters()) == shape.parameters(blueprint.inputs).total
        assert found.shape == teacher.model(batch.ids, batch.mask).shape
        if shape == teacher.architecture:
            torch.testing.assert_close(found, teacher.model(batch.ids, batch.mask), atol=2e-5, rtol=1e-5)
        else:
            assert not torch.allclose(found, teacher.model(batch.ids, batch.mask), atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_read_as_the_folders_tokenizer_makes_them(tmp_path: Path, family: str) -> None:
    """Token types included: what the stock class says of a pair is what is said here of the packed tokens."""
    folder = tiny_task_teacher(tmp_path / "teacher", family=family)
    teacher, corpus = TaskTeacher.load(folder), write_inputs(tmp_path / "inputs.jsonl", "classes", 40)
    packed = build([corpus], teacher.tokenizer, tmp_path / "packed", heldout_fraction=0.5, between=teacher.between)
    segments = packed.segments("train", 20)  # shorter than some pairs
    assert max(packed.train.size) > 20
    batch = assemble(segments, teacher.tokenizer, teacher.recipe)
    said = teacher.model(batch.ids, batch.mask)
    stock, tokenizer = CLASSES["sequence"].from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = map(json.loads, corpus.read_text(encoding="utf-8").splitlines())
    expected = {}
    for row in rows:
        given = tokenizer(row["text_a"], row["text_b"], truncation=True, max_length=22, return_tensors="pt")
        if family != "bert":
            given.pop("token_type_ids", None)
        expected[tuple(given["input_ids"][0].tolist())] = stock(**given).logits[0]
    for ids, mask, logits in zip(batch.ids, batch.mask, said, strict=True):
        torch.testing.assert_close(logits, expected[tuple(ids[: mask.sum()].tolist())], atol=1e-5, rtol=1e-5)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(4, 40), st.sampled_from([(3,), (3, 3)]))
def test_pairs_are_cut_as_tokenizers_cut_them(first: int, second: int, length: int, between: tuple[int, ...]) -> None:
    words = {"[UNK]": 0, "a": 1, "b": 2, "[SEP]": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        pair=f"$A {'[SEP] ' * len(between)}$B", single="$A", special_tokens=[("[SEP]", 3)]
    )
    tokenizer.enable_truncation(length, strategy="longest_first")
    expected = tokenizer.encode(["a"] * first, ["b"] * second, is_pretokenized=True).ids
    assert shortened([1] * first + [*between] + [2] * second, length, between).tolist() == expected


def test_divergences_are_those_of_their_definitions() -> None:
    torch.manual_seed(0)
    own, theirs = torch.randn(6, 3), torch.randn(6, 3)
    p, q = theirs.softmax(1), own.softmax(1)
    by_hand = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(divergence("classes", own, theirs), by_hand)
    counts = torch.tensor([1, 2, 3])
    by_text = torch.stack([by_hand[:1].mean(), by_hand[1:3].mean(), by_hand[3:].mean()])
    torch.testing.assert_close(divergence("tags", own, theirs, counts), by_text)
    p, q = theirs.sigmoid(), own.sigmoid()
    by_hand = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1)
    torch.testing.assert_close(divergence("labels", own, theirs), by_hand)
    torch.testing.assert_close(divergence("number", own[:, :1], theirs[:, :1]), (own[:, 0] - theirs[:, 0]) ** 2)
    p, q = theirs[1:3, 0].softmax(0), own[1:3, 0].softmax(0)
    torch.testing.assert_close(divergence("choices", own[:, :1], theirs[:, :1], counts)[1], (p * (p / q).log()).sum())


@pytest.mark.parametrize("kind", ["classes", "labels", "number", "tags"])
def test_no_constant_is_nearer_than_the_best(kind: Any) -> None:
    torch.manual_seed(1)
    theirs = 2 * torch.randn(40, 1 if kind == "number" else 3)
    counts = torch.tensor([10, 5, 20, 5]) if kind == "tags" else None
    found = torch.zeros(1, theirs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([found], max_iter=200, tolerance_grad=1e-9)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = divergence(kind, found.expand_as(theirs), theirs, counts).mean()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    assert constant(kind, theirs, counts) == pytest.approx(closure().item(), rel=1e-4)


def test_scores_are_official() -> None:
    logits = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]])]
    classes = Outputs("classes", ("no", "yes"), None)
    assert score(classes, [gold_of(classes, name) for name in ("no", "yes", "yes")], logits) == pytest.approx(2 / 3)
    labels = Outputs("labels", ("rude", "long"), None)
    truth = [gold_of(labels, ["rude"]), gold_of(labels, [0, 1]), gold_of(labels, ["rude", "long"])]
    assert truth == [(1, 0), (0, 1), (1, 1)]
    rows = [torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, -1.0]])]
    assert score(labels, truth, rows) == pytest.approx(2 * 3 / (2 * 3 + 2))  # one too many, one missed
    number = Outputs("number", (), None)
    assert score(number, [1.0, 2.0, 3.0], [torch.tensor([[x]]) for x in (0.1, 0.4, 0.2)]) == pytest.approx(0.5)
    for task, label in ((classes, "maybe"), (classes, 2), (labels, "rude"), (number, "much"), (number, "nan")):
        with pytest.raises(InvalidCorpus, match="label"):
            gold_of(task, label)


def test_spans_are_scored_as_seqeval_does() -> None:
    """A word whose token was cut off, or that has none, is taken for O."""
    task = Outputs("tags", ("O", "B-bell", "I-bell"), None)
    truth = [
        gold_of(task, {"tags": ["B-bell", "I-bell", "O"], "places": [0, 1, 3]}),
        gold_of(task, {"tags": [1, 0, 1], "places": [0, -1, 9]}),
    ]
    rows = [torch.eye(3)[[1, 2, 0, 1]], torch.eye(3)[[1, 1]]]  # one span right, one too many; one right, one missed
    assert score(task, truth, rows) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert metric_of(task) == "span F1"
    for tags, message in ((["O", "B-boat"], "'B-boat' is unknown"), (["O", "I-bell"], "I-bell of word 2 continues no")):
        with pytest.raises(InvalidCorpus, match=message):
            gold_of(task, {"tags": tags, "places": [0, 1]})
    with pytest.raises(InvalidCorpus, match="label 'O' is of a whole text, and the teacher tags words"):
        gold_of(task, "O")
    with pytest.raises(InvalidConfig, match="its tags, as NOUN, VERB, are not O, B-TYPE and I-TYPE; use error outputs"):
        gold_of(Outputs("tags", ("NOUN", "VERB"), None), {"tags": ["NOUN"], "places": [0]})


@pytest.mark.parametrize(
    "kind",
    ["classes", "tags", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("number", "labels", "choices"))],
)
def test_from_a_search_to_an_export(tmp_path: Path, kind: str) -> None:
    """Every kind of head: certified, trained in full, handed over in stock files, exported with parity."""
    teacher = tiny_task_teacher(tmp_path / "teacher", kind)
    inputs = write_inputs(tmp_path / "inputs.jsonl", kind)
    run = tmp_path / "run"
    selection = extract(load(ExtractConfig, None, settings(tmp_path, teacher, inputs)), run)
    assert selection.winner is not None
    assert selection.winner.error_kind == "outputs"
    assert selection.certificate is not None
    assert verify(run)
    result = pretrain(run, configure(run, None, {"steps": 30, "batch_tokens": 512, "evaluations": 2}))
    assert list(result.losses) == ["outputs", "hidden"]
    assert result.heldout[-1]["error"] < result.heldout[0]["error"]
    handed = TaskTeacher.load(run / "pretrained")
    assert (handed.outputs.kind, handed.outputs.names) == (kind, TaskTeacher.load(teacher).outputs.names)
    likeness = export(run / "pretrained", ExportConfig(), run).likeness
    assert likeness["logits"].share_of_limit <= 1


def test_a_pipeline_answers_with_the_teachers_names(tmp_path: Path) -> None:
    teacher = tiny_task_teacher(tmp_path / "teacher", "classes")
    inputs = write_inputs(tmp_path / "inputs.jsonl", "classes")
    extract(load(ExtractConfig, None, settings(tmp_path, teacher, inputs, strategy="exhaustive")), tmp_path / "run")
    answer = pipeline("text-classification", model=str(tmp_path / "run" / "selected"))(
        [{"text": "a", "text_pair": "b"}]
    )
    assert answer[0]["label"] in ("no", "yes", "perhaps")


def test_a_cross_encoder_is_handed_over_as_one(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    plain = tiny_task_teacher(tmp_path / "plain", "number")
    original = CrossEncoder(str(plain), activation_fn=torch.nn.Identity())
    original.save_pretrained(str(tmp_path / "teacher"))
    inputs = write_inputs(tmp_path / "inputs.jsonl", "number")
    given = settings(tmp_path, tmp_path / "teacher", inputs, strategy="exhaustive")
    extract(load(ExtractConfig, None, given), tmp_path / "run")
    ours = TaskTeacher.load(tmp_path / "run" / "selected")
    handed = CrossEncoder(str(tmp_path / "run" / "selected"))
    assert isinstance(handed.activation_fn, torch.nn.Identity)
    first, second = tiny_sentences(2)
    tokens = [ours.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (first, second)]
    batch = assemble([[*tokens[0], *ours.between, *tokens[1]]], ours.tokenizer, ours.recipe)
    assert handed.predict([(first, second)])[0] == pytest.approx(float(ours.model(batch.ids, batch.mask)), abs=1e-5)
    (tmp_path / "singles.txt").write_text("\n".join(tiny_sentences(60)), encoding="utf-8")
    given["corpus"] = [str(tmp_path / "singles.txt")]
    with pytest.raises(InvalidTeacher, match="scores pairs of texts, so an input needs text_a and text_b"):
        extract(load(ExtractConfig, None, given), tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["distilbert", "electra"])
def test_heads_of_families_that_become_bert_are_learnt_as_they_are(tmp_path: Path, family: str) -> None:
    """Their heads differ from BERT's: the teacher keeps its own, the student begins with the same weights."""
    auto = CLASSES["sequence"]
    folder = folder_of(tmp_path / "teacher", family, auto, modules=False, num_labels=3)
    teacher = TaskTeacher.load(folder)
    stock, tokenizer = CLASSES["sequence"].from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    text = tiny_sentences(1)[0]
    batch = teacher.batch([tokenizer(text, add_special_tokens=False)["input_ids"]])
    expected = stock(**tokenizer(text, return_tensors="pt")).logits
    torch.testing.assert_close(teacher.model(batch.ids, batch.mask), expected, atol=1e-5, rtol=1e-5)
    given = settings(tmp_path, folder, write_inputs(tmp_path / "inputs.jsonl", "classes"), strategy="exhaustive")
    extract(load(ExtractConfig, None, given), tmp_path / "run")
    assert TaskTeacher.load(tmp_path / "run" / "selected").family == "bert"


def test_labels_give_a_floor_on_the_official_score(tmp_path: Path) -> None:
    teacher = tiny_task_teacher(tmp_path / "teacher", "classes")
    labelled = write_inputs(tmp_path / "labelled.jsonl", "classes", label=True)
    given = settings(tmp_path, teacher, labelled, error="task", strategy="exhaustive")
    selection = extract(load(ExtractConfig, None, given), tmp_path / "run")
    basis = RunFolder.open(tmp_path / "run").read(Basis)
    loaded = TaskTeacher.load(teacher)
    packed = build([labelled], loaded.tokenizer, tmp_path / "packed", heldout_fraction=0.1, between=loaded.between)
    heldout = packed.segments("heldout", 62).shuffled()[:16]
    batch = assemble(heldout, loaded.tokenizer, loaded.recipe)
    right = (loaded.model(batch.ids, batch.mask).argmax(1) == 1).float().mean()
    assert basis.reference_error == pytest.approx(1 - float(right))
    assert selection.winner is not None
    assert selection.winner.error is not None
    hits = (1 - selection.winner.error) * len(heldout)
    assert hits == pytest.approx(round(hits))
    trained = pretrain(
        tmp_path / "run",
        configure(tmp_path / "run", None, {"steps": 4, "threads": 1, "heldout": 12, "batch_tokens": 512}),
    )
    assert trained.gold is not None
    assert (trained.gold.metric, trained.gold.inputs) == ("accuracy", 12)
    heldout = packed.segments("heldout", 62).shuffled()[:12]
    batch = assemble(heldout, loaded.tokenizer, loaded.recipe)
    for folder, found in ((tmp_path / "run" / "pretrained", trained.gold.student), (teacher, trained.gold.teacher)):
        model = TaskTeacher.load(folder).model
        assert found == pytest.approx(float((model(batch.ids, batch.mask).argmax(1) == 1).float().mean()))
    card = (tmp_path / "run" / "pretrained" / "README.md").read_text(encoding="utf-8")
    assert f"accuracy on 12 held-out inputs: {trained.gold.student:.3f}, teacher" in card
    given["corpus"] = [str(write_inputs(tmp_path / "bare.jsonl", "classes"))]
    with pytest.raises(InvalidConfig, match="the inputs have none"):
        extract(load(ExtractConfig, None, given), tmp_path / "other")


def test_a_general_student_is_a_start(tmp_path: Path) -> None:
    teacher = tiny_task_teacher(tmp_path / "teacher", "classes")
    inputs = write_inputs(tmp_path / "inputs.jsonl", "classes")
    start = tiny_teacher(tmp_path / "start", layers=3, seed=5)
    given = settings(tmp_path, teacher, inputs, start_from=str(start), strategy="exhaustive")
    extract(load(ExtractConfig, None, given), tmp_path / "run")
    assert TaskTeacher.load(tmp_path / "run" / "selected").outputs.kind == "classes"


REFUSED = {
    "mixed kinds": ([{"text": "a bell"}, {"text_a": "a bell", "text_b": "a boat"}], "pairs of texts and some single"),
    "labels on some": ([{"text": "a bell", "label": 1}, {"text": "a boat"}], "1 of 2 inputs have a label"),
    "no column": ([{"sentence": "a bell"}, {"sentence": "a boat"}], "no column 'text'"),
    "no text": ([{"text": ""}, {"text": None}], "no inputs"),
    "a number": ([{"text_a": 3, "text_b": "a boat"}], "holds int where text is needed"),
    "words that are none": ([{"tokens": 3}], "'tokens' holds 3 where a list of texts is needed"),
    "one word as a text": ([{"tokens": "a bell"}], "'tokens' holds 'a bell' where a list of texts is needed"),
    "a tag for a sentence": (
        [{"tokens": ["a", "bell"], "tags": "O"}],
        "is one, and words have a tag each",
    ),
    "too few tags": ([{"tokens": ["a", "bell"], "tags": ["O"]}], "line 1: 2 words and 1 tags; give a tag for each"),
    "a word of two": ([{"tokens": ["a bell"], "tags": ["O"]}], "2 words and 1 tags; .* no word that .* holds a space"),
    "choices in one text": ([{"text": "a bell", "choices": "a or b"}], "where a list of texts is needed"),
    "no choice": ([{"text": "a bell", "choices": ["a"]}], "holds 1 texts; a choice is among two or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_inputs_that_are_refused(tmp_path: Path, case: str) -> None:
    rows, message = REFUSED[case]
    path = tmp_path / "inputs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    teacher = TaskTeacher.load(tiny_task_teacher(tmp_path / "teacher"))
    with pytest.raises(InvalidCorpus, match=message):
        build([path], teacher.tokenizer, tmp_path / "packed", minimum=1, between=teacher.between)


def test_short_inputs_are_kept(tmp_path: Path) -> None:
    """Prose drops what has fewer than three words; an input of a task may be one."""
    path = tmp_path / "inputs.jsonl"
    path.write_text("\n".join(json.dumps({"text": word}) for word in ("bell", "boat", "")), encoding="utf-8")
    teacher = TaskTeacher.load(tiny_task_teacher(tmp_path / "teacher"))
    packed = build([path], teacher.tokenizer, tmp_path / "packed", minimum=1, heldout_fraction=0.5, between=())
    assert sum(packed.meta.documents.values()) == 2


@pytest.mark.parametrize(
    ("kind", "form", "message"),
    [
        ("tags", "classes", "tags the tokens of one text"),
        ("classes", "choices", "scores a text, or a pair of texts"),
        ("choices", "classes", "chooses among answers"),
    ],
)
def test_heads_that_do_not_fit_the_inputs(tmp_path: Path, kind: str, form: str, message: str) -> None:
    teacher, inputs = tiny_task_teacher(tmp_path / "teacher", kind), write_inputs(tmp_path / "inputs.jsonl", form)
    with pytest.raises(InvalidTeacher, match=message):
        extract(load(ExtractConfig, None, settings(tmp_path, teacher, inputs)), tmp_path / "run")


def test_outputs_that_are_constant(tmp_path: Path) -> None:
    folder = tiny_task_teacher(tmp_path / "teacher")
    model = CLASSES["sequence"].from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight.zero_()
    model.save_pretrained(folder)
    with pytest.raises(InvalidTeacher, match="outputs of 16 held-out inputs are all the same"):
        extract(
            load(ExtractConfig, None, settings(tmp_path, folder, write_inputs(tmp_path / "i.jsonl", "classes"))),
            tmp_path / "run",
        )


def test_the_learning_rate_is_that_of_the_kind_of_teacher(tmp_path: Path) -> None:
    corpus = tiny_corpus(tmp_path / "corpus.txt")

    def rates(teacher: Path, **changes: Any) -> list[float]:
        config = resolved(load(ExtractConfig, None, settings(tmp_path, teacher, corpus, **changes)), tmp_path)
        return [theta.learning_rate for theta in thetas(config)]

    task, encoder = tiny_task_teacher(tmp_path / "task"), tiny_teacher(tmp_path / "encoder")
    assert (rates(encoder, learning_rate=[]), rates(task, learning_rate=[])) == ([1e-3], [3e-4])
    assert rates(encoder, learning_rate=[2e-3]) == rates(task, learning_rate=[2e-3]) == [2e-3]


def test_errors_that_do_not_go_with_the_teacher(tmp_path: Path) -> None:
    task, encoder = tiny_task_teacher(tmp_path / "task"), tiny_teacher(tmp_path / "encoder")
    corpus = tiny_corpus(tmp_path / "corpus.txt")
    with pytest.raises(InvalidTeacher, match="has no head of a task"):
        extract(load(ExtractConfig, None, settings(tmp_path, encoder, corpus, error="outputs")), tmp_path / "a")
    with pytest.raises(InvalidConfig, match="task is missing: error 'task' scores candidates on that set"):
        extract(load(ExtractConfig, None, settings(tmp_path, encoder, corpus, error="task")), tmp_path / "d")
    with pytest.raises(InvalidTeacher, match="use error outputs"):
        extract(load(ExtractConfig, None, settings(tmp_path, task, corpus, error="embedding")), tmp_path / "b")
    with pytest.raises(InvalidConfig, match="loss_embedding has no meaning"):
        pretrain(
            tmp_path / "c",
            configure(
                tmp_path / "c",
                None,
                {"teacher": str(task), "corpus": [str(corpus)], "architecture": "1-2-32-24", "loss_embedding": 1.0},
            ),
        )


@pytest.mark.slow
def test_a_public_task_gives_the_inputs(tmp_path: Path) -> None:
    """Pairs of the training part, in the run folder, with their labels by name."""
    data, texts = tmp_path / "glue_data" / "RTE", tiny_sentences(120)
    data.mkdir(parents=True)
    rows = [
        f"{n}\t{first}\t{second}\t{('entailment', 'not_entailment')[n % 2]}"
        for n, (first, second) in enumerate(zip(texts[:60], texts[60:], strict=True))
    ]
    (data / "train.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n", encoding="utf-8")
    teacher = tiny_task_teacher(tmp_path / "teacher")
    given = settings(tmp_path, teacher, tmp_path, strategy="exhaustive", task="rte", data=str(tmp_path / "glue_data"))
    extract(load(ExtractConfig, None, given | {"corpus": []}), tmp_path / "run")
    inputs = [json.loads(line) for line in (tmp_path / "run" / "inputs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(inputs) == 60
    assert inputs[1]["label"] == "not_entailment"
    assert (inputs[1]["text_a"], inputs[1]["text_b"]) == (texts[1], texts[61])
    encoder = tiny_teacher(tmp_path / "encoder")
    with pytest.raises(InvalidConfig, match="are for a teacher that is fine-tuned for it"):
        extract(load(ExtractConfig, None, given | {"corpus": [], "teacher": str(encoder)}), tmp_path / "other")
