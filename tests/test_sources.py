"""Teachers that students do not start from: any encoder, recorded vectors; what a search makes of them, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings
from subarch.extraction.verify import verify
from subarch.extraction.workbench import Workbench
from subarch.learning.material import RIDGES, ridge
from subarch.learning.signals import EmbeddingSignal
from subarch.models.stock import StockTeacher
from subarch.models.student import Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract, pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.pretrain import configure
from subarch.pretraining.setup import Setup
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, Selection
from subarch.text.corpus import Corpus, Segments, build, train_tokenizer
from subarch.text.read import read
from tiny import tiny_corpus, tiny_sentences, tiny_teacher, tiny_tokenizer, write_json
from tiny_export import exported, with_corpus
from tiny_run import AXES, OneProcess, tiny_options
from tiny_stock import stock_folder

pytestmark = pytest.mark.usefixtures("one_process")
SHORT = {"steps": 3, "batch_tokens": 256, "evaluations": 1, "threads": 1, "learning_rate": 1e-3}


# Corpora that keep text


def words(segments: Segments) -> list[list[str]]:
    """The tokens of each segment, in words of the tiny vocabulary."""
    vocabulary = tiny_tokenizer()
    return [vocabulary.convert_ids_to_tokens(segment.tolist()) for segment in segments]


def spoken(text: str) -> list[str]:
    return tiny_tokenizer().tokenize(text)


@pytest.mark.parametrize("piece", [None, 1, 5, 12])
def test_texts_are_what_the_tokens_decode_to(tmp_path: Path, piece: int | None) -> None:
    source = tiny_corpus(tmp_path / "corpus.txt", 60)
    corpus = build([source], tiny_tokenizer(), tmp_path / "packed", texts=True, piece=piece)
    documents = [document.text for document in read([source])]
    found = {part: corpus.segments(part, piece or 512) for part in ("train", "heldout")}
    pieces = []
    for segments in found.values():
        assert segments.texts is not None
        assert len(segments.texts) == len(segments)
        assert [spoken(text) for text in segments.texts] == words(segments)
        assert piece is None or segments.size.max() <= piece
        pieces += segments.texts
        shuffled = segments.shuffled()
        assert shuffled.texts is not None
        assert [spoken(text) for text in shuffled.texts] == words(shuffled)
        assert shuffled.texts[0] == segments.texts[int(np.random.default_rng(0).permutation(len(segments))[0])]
    if piece is None:
        assert sorted(pieces) == sorted(documents)
    else:  # nothing is lost, nothing is there twice
        assert sorted("".join(pieces).replace(" ", "")) == sorted("".join(documents).replace(" ", ""))
        assert len(pieces) > len(documents)


def test_pieces_of_a_document_are_held_out_together(tmp_path: Path) -> None:
    source = tiny_corpus(tmp_path / "corpus.txt", 80)
    corpus = build([source], tiny_tokenizer(), tmp_path / "packed", texts=True, piece=6, heldout_fraction=0.3)
    documents = [document.text.replace(" ", "") for document in read([source])]
    split = []
    for part in ("train", "heldout"):
        texts = corpus.segments(part, 6).texts
        assert texts is not None
        whole = "".join(texts).replace(" ", "")
        split.append({document for document in documents if document in whole})
        assert sum(map(len, split[-1])) == len(whole)
        assert len(texts) > 2 * len(split[-1]) > 0
    assert sorted(split[0] | split[1]) == sorted(documents)
    assert not split[0] & split[1]


def test_a_corpus_with_texts_is_another_than_one_without(tmp_path: Path) -> None:
    source = tiny_corpus(tmp_path / "corpus.txt", 60)
    plain = build([source], tiny_tokenizer(), tmp_path / "packed")
    assert plain.train.texts is None
    assert not list((tmp_path / "packed").glob("*.text*"))
    kept = build([source], tiny_tokenizer(), tmp_path / "packed", texts=True)  # built again
    assert kept.content_hash != plain.content_hash
    assert kept.train.texts is not None
    assert Corpus.load(tmp_path / "packed").train.texts is not None


letters = st.text(st.sampled_from("ab éß語\u00a0.,\n🙂"), max_size=40)


@settings(max_examples=60)
@given(st.lists(letters, min_size=1, max_size=8), st.integers(1, 9), st.sampled_from(["byte", "wordpiece"]))
def test_any_text_is_cut_at_white_space_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], piece: int, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lines = [f"{text} and {number} a b" for number, text in enumerate([*texts, "one more"])]
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines), encoding="utf-8")
    tokenizer: Any = train_tokenizer(["ab ab é"], 300) if kind == "byte" else tiny_tokenizer()
    documents = [document.text for document in read([folder / "a.jsonl"])]
    corpus = build([folder / "a.jsonl"], tokenizer, folder / "packed", texts=True, piece=piece, minimum=2)
    found = []
    for part in ("train", "heldout"):
        segments = corpus.segments(part, piece)
        assert segments.texts is not None
        assert all(text == text.strip() != "" for text in segments.texts)
        for text, tokens in zip(segments.texts, segments, strict=True):
            whole = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokens.tolist() == whole[:piece]
            # A character of several tokens is not torn apart, and at its new beginning a word may be read otherwise
            assert len(whole) <= piece + 4
        found += segments.texts
    assert sorted("".join("".join(found).split())) == sorted("".join("".join(documents).split()))
    # Only a word that is longer than a piece by itself is cut within
    longest = max(
        len(tokenizer(word, add_special_tokens=False)["input_ids"]) for text in documents for word in text.split()
    )
    if longest <= piece:
        assert sorted(" ".join(found).split()) == sorted(" ".join(documents).split())


# Searches


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of another family, tokenizer and width, what students start from, and texts."""
    folder = tmp_path_factory.mktemp("made")
    tokenizer = train_tokenizer(tiny_sentences(), 330)
    tokenizer.model_max_length = 40
    tiny_corpus(folder / "corpus.txt")
    centred(of_words(stock_folder(folder / "raw", "mpnet", tokenizer)), 24).save(str(folder / "stock"))
    about = {"prompts": {"query": "find: ", "document": "text: "}, "similarity_fn_name": "dot"}
    write_json(folder / "stock" / "config_sentence_transformers.json", about)
    tiny_teacher(folder / "raw-modern", family="modernbert", width=16, heads=2, layers=2)
    centred(of_words(folder / "raw-modern"), 16).save(str(folder / "modern"))
    tiny_teacher(folder / "raw-start", seed=3)
    of_words(folder / "raw-start").save(str(folder / "start"))
    (folder / "space.yaml").write_text(yaml.safe_dump(AXES), encoding="utf-8")
    return folder


def of_words(source: Path) -> Any:
    """The encoder with layers that change little: what random ones say of a text, no other can learn."""
    encoder = SentenceTransformer(str(source), device="cpu")
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if weight.ndim == 2:
                weight *= 3 if "word" in name or "tok_embeddings" in name else 0.1
    return SentenceTransformer(modules=list(encoder.children())[:2], device="cpu")  # without Normalize


def centred(encoder: Any, width: int) -> Any:
    """The encoder with a map behind it that takes the mean away: random ones say nearly the same of every text."""
    mean = torch.tensor(encoder.encode(tiny_sentences(), normalize_embeddings=False)).mean(0)
    dense = Dense(len(mean), width, activation_function=torch.nn.Identity())
    with torch.no_grad():
        torch.nn.init.orthogonal_(dense.linear.weight, generator=torch.Generator().manual_seed(0))
        dense.linear.bias.copy_(-dense.linear.weight @ mean)
    return SentenceTransformer(modules=[*encoder.children(), dense], device="cpu")


def config(made: Path, **changes: Any) -> ExtractConfig:
    given = {"teacher": made / "stock", "start_from": made / "start", "max_length": 32} | changes
    return load(ExtractConfig, None, tiny_options(made, **given))


@pytest.fixture(scope="module")
def searched(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a search with the stock teacher."""
    run = tmp_path_factory.mktemp("searched") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(config(made, strategy="certified", delta=0.5, prompt="query"), run)
    return run


def test_a_student_of_another_tokenizer_from_search_to_int8(made: Path, searched: Path, tmp_path: Path) -> None:
    selection = RunFolder.open(searched).read(Selection)
    assert selection.winner is not None
    assert selection.teacher is not None
    assert (selection.teacher.name, selection.teacher.architecture) == ("stock", None)
    shape = Architecture.parse(selection.winner.architecture)
    basis = RunFolder.open(searched).read(Basis)
    assert (basis.start, basis.inputs.mapped, basis.inputs.output) == ("3-4-32-64", True, 24)
    assert any("certificate" in sentence or "trained" in sentence for sentence in verify(searched))

    # The error is that of the folder, as others load it: the teacher reads text with its own tokenizer, the student too
    bench = Workbench.open(config(made, prompt="query"), searched)
    assert isinstance(bench.signal, EmbeddingSignal)
    texts = list(bench.signal.heldout.texts or [])
    assert len(texts) > 5
    teacher, student = (SentenceTransformer(str(at), device="cpu") for at in (made / "stock", searched / "selected"))
    theirs, own = teacher.encode(texts, prompt="find: "), student.encode(texts)
    unit = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-5)
    distance, constant = 1 - (own * unit).sum(1).mean(), 1 - np.linalg.norm(unit.mean(0))
    assert selection.winner.error == pytest.approx(distance / constant, abs=2**-10)
    assert selection.winner.error < 0.9
    size = sum(parameter.numel() for name, parameter in student.named_parameters() if "pooler" not in name)
    assert size == selection.winner.parameters == shape.parameters(bench.blueprint.inputs).total

    trained = pretrain(searched, configure(searched, None, SHORT))
    assert trained.losses == {"embedding": 1.0}
    assert trained.started == "the search's own training of it"
    assert trained.heldout[-1]["embedding"] != trained.heldout[0]["embedding"]
    assert trained.heldout[0]["embedding"] / constant == pytest.approx(selection.winner.error, abs=2**-9)
    pretrained = SentenceTransformer(str(searched / "pretrained"), device="cpu")
    after = 1 - (pretrained.encode(texts) * unit).sum(1).mean()
    assert after == pytest.approx(trained.heldout[-1]["embedding"], abs=2**-9)

    parity = exported(searched / "pretrained", searched, runtime="onnx", quantize="int8", **with_corpus(tmp_path))
    assert parity.variant == "onnx-int8"
    assert parity.likeness["sentence_embedding"].worst_cosine > 0.9


def test_prompts_and_similarity_are_handed_over(searched: Path) -> None:
    written = json.loads((searched / "selected" / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    assert written["prompts"] == {"query": "find: ", "document": "text: "}
    assert (written["default_prompt_name"], written["similarity_fn_name"]) == ("query", "dot")


@pytest.mark.slow
def test_a_modernbert_teaches_a_bert(made: Path, tmp_path: Path) -> None:
    """Both could be inherited from: the teacher is learnt from, the start is inherited."""
    selection = extract(config(made, teacher=made / "modern"), tmp_path / "run")
    assert selection.winner is not None
    assert selection.winner.error < 0.9
    student = Teacher.load(tmp_path / "run" / "selected")
    assert (student.family, student.width) == ("bert", 16)
    # and the other way round
    turned = config(made, teacher=made / "start", start_from=made / "modern", space=str(narrow(tmp_path)), epsilon=1)
    assert (found := extract(turned, tmp_path / "turned").winner) is not None
    assert found.error < 0.9
    assert Teacher.load(tmp_path / "turned" / "selected").family == "modernbert"


def narrow(folder: Path) -> Path:
    path = folder / "narrow.yaml"
    path.write_text(yaml.safe_dump({"depth": [1, 2], "heads": [2], "hidden": [16], "intermediate": [64]}))
    return path


def test_a_start_that_is_the_teacher_changes_nothing(made: Path, tmp_path: Path) -> None:
    plain, named = (
        Workbench.open(config(made, teacher=made / "start", start_from=start), tmp_path / str(start is None))
        for start in (None, made / "start")
    )
    assert named.identity == plain.identity
    assert not named.material.reads_text


def test_what_a_student_starts_as_is_near_where_the_start_knows_the_text(made: Path, tmp_path: Path) -> None:
    bench = Workbench.open(config(made), tmp_path)
    assert isinstance(bench.signal, EmbeddingSignal)
    assert bench.readout is not None
    shape = Architecture(3, 4, 32, 64)  # the start itself, and the map
    error = bench.signal.error(bench.student(shape).eval())
    # The best map to the centred directions, by least squares in NumPy: nothing linear has less to be explained
    start, signal = Teacher.load(made / "start"), bench.signal
    own = start.embed(list(signal.train)).double().numpy()
    own = np.column_stack([own, np.ones(len(own))])
    wanted = torch.nn.functional.normalize(signal.targets.double(), dim=-1).numpy()
    weight = np.linalg.lstsq(own, wanted, rcond=None)[0]
    held = np.column_stack([start.embed(list(signal.heldout)).double().numpy(), np.ones(len(signal.heldout))]) @ weight
    theirs = torch.nn.functional.normalize(signal.heldout_targets, dim=-1).numpy()
    best = (1 - (held / np.linalg.norm(held, axis=1, keepdims=True) * theirs).sum(1).mean()) / signal.constant
    assert error == pytest.approx(best, abs=0.05)
    assert error < 0.8 < 1.2 * bench.signal.error(Student(shape, bench.blueprint).eval())


def test_pretraining_from_the_weights_of_another_encoder(made: Path, tmp_path: Path) -> None:
    settings = pretraining(made, steps=16, learning_rate=5e-3)
    trained = pretrain(tmp_path, settings)
    assert trained.started == "start's weights, reduced"
    assert (trained.teacher, trained.teacher_architecture) == ("stock", None)
    assert trained.heldout[-1]["embedding"] < 0.9 * trained.heldout[0]["embedding"]
    assert trained.heldout[0]["error"] < 1.2


def test_similarities_alone_leave_a_student_in_the_space_of_its_start(made: Path, tmp_path: Path) -> None:
    """Of whatever width the teacher is, here 24: no map, and the whole start says what it said."""
    whole = {"architecture": "3-4-32-64", "loss_similarities": 1.0, "loss_embedding": 0.0}
    trained = pretrain(tmp_path / "run", pretraining(made, steps=1, learning_rate=1e-30, **whole))
    assert trained.losses == {"similarities": 1.0}
    own, start = (
        SentenceTransformer(str(at), device="cpu") for at in (tmp_path / "run" / "pretrained", made / "start")
    )
    texts = tiny_sentences(5)
    expected = start.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(own.encode(texts, prompt=""), expected, atol=1e-5)
    trained = pretrain(tmp_path / "longer", pretraining(made, steps=16, learning_rate=5e-3, **whole))
    assert trained.heldout[-1]["similarities"] < trained.heldout[0]["similarities"]


def test_the_map_has_the_penalty_that_is_best_for_what_is_left_out() -> None:
    source = torch.Generator().manual_seed(0)
    own = torch.randn(14, 6, generator=source) * torch.tensor([3.0, 1.0, 1.0, 0.3, 0.1, 0.01]) + 2
    theirs = own @ torch.randn(6, 4, generator=source) + torch.randn(14, 4, generator=source)

    def fitted(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
        centred = x - x.mean(0)
        weight = np.linalg.solve(centred.T @ centred + penalty * np.eye(6), centred.T @ (y - y.mean(0))).T
        return np.column_stack([weight, y.mean(0) - weight @ x.mean(0)])

    x, y = own.double().numpy(), theirs.double().numpy()
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    scale = np.square(np.linalg.svd(x - x.mean(0))[1]).mean()

    def left_out(penalty: float) -> float:
        rest = [np.arange(14) != row for row in range(14)]
        maps = [fitted(x[kept], y[kept], penalty) for kept in rest]
        return float(sum(np.square(y[row] - maps[row] @ [*x[row], 1]).sum() for row in range(14)))

    best = min((share * scale for share in RIDGES), key=left_out)
    assert RIDGES[0] * scale < best < RIDGES[-1] * scale
    np.testing.assert_allclose(ridge(own, theirs), fitted(x, y, best), atol=1e-9)


# Recorded vectors


def recorded(path: Path, teacher: StockTeacher, texts: list[str]) -> Path:
    vectors = teacher.embed_texts(texts).numpy()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "vector": list(vectors)}), path)
    return path


def test_recorded_vectors_give_what_the_model_itself_gives(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A batch that is padded otherwise is rounded otherwise
    monkeypatch.setattr("subarch.models.stock.BATCH", 1)
    texts = [document.text for document in read([made / "corpus.txt"])]
    file = recorded(tmp_path / "vectors.parquet", StockTeacher.load(made / "stock"), texts)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    found, files = [], []
    for name, changes in (("model", {"corpus": [str(corpus)]}), ("file", {"teacher": file, "corpus": None})):
        run = tmp_path / name
        settings = config(made, **changes)
        found.append(extract(settings, run))
        pretrain(run, configure(run, None, SHORT))
        files.append([(run / folder / "model.safetensors").read_bytes() for folder in ("selected", "pretrained")])
    assert settings.corpus == [str(file)]
    assert found[0].winner is not None
    assert [row.error for row in found[0].candidates] == [row.error for row in found[1].candidates]
    assert found[0].winner == found[1].winner
    assert files[0] == files[1]
    assert found[1].teacher is not None
    assert (found[1].teacher.name, found[1].teacher.parameters) == ("vectors.parquet", None)
    page = (tmp_path / "file" / "report.html").read_text(encoding="utf-8")
    assert "vectors.parquet" in page


def test_texts_that_were_not_recorded_are_named(made: Path, tmp_path: Path) -> None:
    texts = [document.text for document in read([made / "corpus.txt"])]
    file = recorded(tmp_path / "vectors.parquet", StockTeacher.load(made / "stock"), texts[:150])
    with pytest.raises(InvalidTeacher, match=r"has no vector for \d+ of \d+ texts, first 'the|has no vector for"):
        Workbench.open(config(made, teacher=file), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_latency_ratio": 0.5, "cost": "latency"},
            "max_latency_ratio 0.5 is a share of the teacher's latency, and this teacher, recorded vectors or a static "
            "table, has none; give max_latency_ms",
        ),
        ({"prompt": "query: "}, r"prompt 'query: ' is put before what a teacher reads, and .*vectors.parquet holds"),
        ({"start_from": None}, r"students cannot start from the teacher vectors.parquet \(it is a record of vectors"),
    ],
    ids=["ratio", "prompt", "start"],
)
def test_what_cannot_be_done_with_recorded_vectors(
    made: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    texts = [document.text for document in read([made / "corpus.txt"])]
    file = recorded(tmp_path / "vectors.parquet", StockTeacher.load(made / "stock"), texts)
    with pytest.raises(InvalidConfig, match=message):
        extract(config(made, teacher=file, **changes), tmp_path / "run")


# Refusals


def test_without_a_start_the_models_of_this_machine_are_named(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: real(tmp_path / "hub"))
    with pytest.raises(InvalidConfig) as caught:
        extract(config(made, start_from=None), tmp_path / "run")
    message = str(caught.value)
    assert "students cannot start from the teacher stock (" in message
    assert "model type 'mpnet' is not supported" in message
    assert "name one with start_from, a folder or hub name of a small BERT-like encoder" in message
    assert "in the cache of this machine" not in message
    for name in ("models--BAAI--bge-small", "models--somebody--tiny", "datasets--other--texts"):
        snapshot = tmp_path / "hub" / name / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}", encoding="utf-8")
        (tmp_path / "hub" / name / "refs").mkdir()
        (tmp_path / "hub" / name / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    with pytest.raises(InvalidConfig, match="in the cache of this machine: BAAI/bge-small, somebody/tiny; or set"):
        pretrain(tmp_path / "other", pretraining(made, start_from=None))


def pretraining(made: Path, **changes: Any) -> PretrainConfig:
    given = {"architecture": "1-4-16-32", "teacher": made / "stock", "start_from": made / "start", "max_length": 32}
    given |= {"corpus": [str(made / "corpus.txt")]} | SHORT | changes
    return load(PretrainConfig, None, {key: value for key, value in given.items() if value is not None})


def test_errors_by_token_need_a_teacher_with_the_students_tokens(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="error 'logits' compares token by token, so the teacher has to be what"):
        extract(config(made, error="logits"), tmp_path / "run")


@pytest.mark.parametrize("loss", ["hidden", "relations", "logits", "mlm"])
def test_losses_inside_the_teacher_need_one_with_the_students_tokens(made: Path, tmp_path: Path, loss: str) -> None:
    asked = pretraining(made, **{f"loss_{loss}": 1.0, "loss_embedding": 1.0})
    with pytest.raises(InvalidConfig, match=f"loss_{loss} compares the insides of teacher and student"):
        pretrain(tmp_path, asked)


def test_a_teacher_that_reads_text_cannot_stream(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="streaming reads tokens of prose, and this teacher reads text"):
        pretrain(tmp_path, pretraining(made, streaming=True, corpus=["datasets:somewhere"]))


def test_a_prompt_without_a_teacher(made: Path, tmp_path: Path) -> None:
    alone = {"teacher": None, "start_from": None, "error": "mlm", "initialise": "scratch", "vocabulary_size": 300}
    with pytest.raises(InvalidConfig, match="prompt 'query: ' is put before what a teacher reads, and there is none"):
        extract(config(made, **alone, prompt="query: "), tmp_path / "run")


# Prompts


def test_a_start_reads_the_teachers_prompt_whatever_its_own(made: Path, tmp_path: Path) -> None:
    start = tiny_teacher(tmp_path / "start", seed=3)
    about = {"prompts": {"query": "the boat: ", "find": "a gull: "}, "default_prompt_name": "query"}
    write_json(start / "config_sentence_transformers.json", about)
    for prompt, text in ((None, ""), ("query", "find: "), ("the boat: ", "the boat: "), ("find:", "find:")):
        material = Workbench.open(config(made, start_from=start, prompt=prompt), tmp_path / f"run {prompt}").material
        assert material.start is not None
        assert (material.recipe.prefix, material.start.recipe.prefix) == (text, text)
        assert dict(material.handed_over.prompts) == {"query": "find: ", "document": "text: "}


def test_a_prompt_that_an_inheritable_teacher_cannot_follow_makes_it_a_stock_one(made: Path, tmp_path: Path) -> None:
    inside = config(made, teacher=made / "start", prompt="the bell")  # "bell" runs into the first word
    material = Workbench.open(
        config(made, teacher=made / "start", start_from=None, prompt="the bell: "), tmp_path / "a"
    )
    assert not material.material.reads_text
    with pytest.raises(InvalidTeacher, match="changes how its tokenizer reads the text behind it"):
        Workbench.open(inside, tmp_path / "b")  # what students start from reads it alike


# From scratch


def test_from_scratch_the_table_begins_as_the_teachers_vectors_of_the_tokens(made: Path, tmp_path: Path) -> None:
    bench = Workbench.open(scratch(made), tmp_path)
    assert isinstance(bench.signal, EmbeddingSignal)
    assert bench.tokens is not None
    assert bench.tokens.shape == (300, 24)
    for hidden in (32, 16):
        static = Architecture(0, 0, hidden, 0)
        begun = bench.signal.error(bench.student(static).eval())
        torch.manual_seed(0)
        noise = bench.signal.error(Student(static, bench.blueprint).eval())
        assert begun < 1
        assert begun < 0.85 * noise


def scratch(made: Path, **changes: Any) -> ExtractConfig:
    return config(made, start_from=None, initialise="scratch", vocabulary_size=300, **changes)


@pytest.mark.slow
def test_a_search_from_scratch_is_pretrained_from_where_it_ended(made: Path, tmp_path: Path) -> None:
    selection = extract(scratch(made, epsilon=5, learning_rate=[5e-3]), tmp_path / "run")
    assert selection.winner is not None
    assert selection.winner.error < 1
    trained = pretrain(tmp_path / "run", configure(tmp_path / "run", None, SHORT))
    assert trained.started == "the search's own training of it"
    assert Teacher.load(tmp_path / "run" / "pretrained").width == 24
    alone = pretraining(made, start_from=None, initialise="scratch", vocabulary_size=300)
    setup = Setup.load(alone, tmp_path / "alone", Architecture.parse("1-4-16-32"))
    assert setup.started == "random weights, and the teacher's vectors of the tokens"
    assert setup.material.token_vectors() is not None


def test_of_recorded_vectors_no_token_can_be_asked(made: Path, tmp_path: Path) -> None:
    texts = [document.text for document in read([made / "corpus.txt"])]
    file = recorded(tmp_path / "vectors.parquet", StockTeacher.load(made / "stock"), texts)
    bench = Workbench.open(scratch(made, teacher=file), tmp_path / "run")
    assert bench.tokens is None
    assert bench.train(Architecture(0, 0, 16, 0), Settings(4, 1e-3, 8)).error is not None
