"""Corpora of several languages: who is read, in which shares, and that it is known of every sequence afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import sentences, write
from subarch.errors import InvalidCorpus
from subarch.extraction.workbench import Workbench
from subarch.pipeline import extract
from subarch.pretraining.pretrain import train
from subarch.run.folder import RunFolder
from subarch.run.records import Selection
from subarch.show.formats import by_language
from subarch.show.pretraining import before_and_after
from subarch.show.screen import show_selection
from subarch.text.corpus import Corpus, build, content_of, train_tokenizer
from subarch.text.read import Document, inputs, opened, read
from subarch.text.vocabulary import check_written, unwritten_by_language
from tiny import tiny_sentences, tiny_tokenizer
from tiny_pretrain import tiny_pretraining
from tiny_run import AXES, OneProcess, tiny_config

GERMAN = [f"Das alte Boot liegt am Steg Nummer {number}." for number in range(400)]


def folder_of(path: Path) -> Path:
    """Files of 300 English sentences and 400 German ones, `en.txt` and `de.txt`."""
    write(path / "en.txt", sentences(300))
    write(path / "de.txt", GERMAN)
    return path


def test_a_source_has_a_language_and_a_share(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", sentences(5))
    assert opened(str(path)).language is None
    named = opened(f"pt-BR={path}")
    assert (named.language, named.share, named.name, named.files) == ("pt-BR", None, str(path), (path,))
    assert opened(f"de:0.3={path}").share == 0.3
    odd = write(tmp_path / "de=b.txt", sentences(5))
    assert opened(odd).language is opened(str(odd)).language is None  # a file of this name


@pytest.mark.parametrize("share", ["0", "-1", "half", "nan", "inf", ""])
def test_a_share_is_a_number_above_0(tmp_path: Path, share: str) -> None:
    path = write(tmp_path / "a.txt", sentences(5))
    with pytest.raises(InvalidCorpus, match=f"the share '{share}' is no number above 0; write it as in de:0.3=FOLDER"):
        opened(f"de:{share}={path}")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["de={}/de.txt", "{}/en.txt"], "en.txt: has no language, and other sources have; name that of each"),
        (["de:1={}/de.txt", "en={}/en.txt"], "language 'en' has no share, and others have; give one to each"),
        (["de:1={}/de.txt", "de:2={}/en.txt"], r"language 'de' has the shares 1.0 and 2.0; give all of its sources"),
        (["de={}/none.txt", "en={}/en.txt"], "none.txt: no such file or folder"),
    ],
)
def test_languages_are_of_all_sources(tmp_path: Path, sources: list[str], message: str) -> None:
    folder = folder_of(tmp_path)
    with pytest.raises(InvalidCorpus, match=message):
        list(read([source.format(folder) for source in sources]))


def test_inputs_of_a_task_have_no_language(tmp_path: Path) -> None:
    with pytest.raises(InvalidCorpus, match=r"de=.*de.txt: languages are of prose"):
        inputs([opened(f"de={folder_of(tmp_path)}/de.txt")], "text")


def test_without_shares_all_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    found = list(read([f"en={folder}/en.txt", f"de={folder}/de.txt"]))
    assert [one.language for one in found] == ["de"] * 400 + ["en"] * 300


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(3, 40), min_size=1, max_size=30), min_size=2, max_size=3),
    shares=st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
)
def test_shares_hold_until_a_language_has_no_more(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[list[int]], shares: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("mixed")
    sources = []
    for name, share, own in zip(("aa", "bb", "cc"), shares, lengths, strict=False):
        write(folder / f"{name}.txt", [" ".join([name] * words) for words in own])
        sources.append(f"{name}:{share}={folder}/{name}.txt")
    found = list(read(sources))
    assert found == list(read(sources[::-1]))
    done = {name: sum(len(one.text) for one in found if one.language == name) for name in ("aa", "bb", "cc")}
    spent = [done[source[:2]] / share for source, share in zip(sources, shares, strict=False)]
    longest = max(max(own) for own in lengths) * 3
    assert max(spent) - min(spent) <= longest / min(shares)
    left = [len(own) - sum(one.language == name for one in found) for name, own in zip(done, lengths, strict=False)]
    assert min(left) == 0


def test_a_corpus_knows_the_language_of_every_sequence(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    write(tmp_path / "en.txt", tiny_sentences(200))
    write(tmp_path / "de.txt", [f"{number} " * 9 + str(number) for number in range(200, 400)])
    sources = [f"en={tmp_path}/en.txt", f"de={tmp_path}/de.txt"]
    corpus = build(sources, tokenizer, tmp_path / "corpus", heldout_fraction=0.2)
    assert corpus.meta.languages is not None
    assert list(corpus.meta.languages) == ["de", "en"]
    harbour = tokenizer.convert_tokens_to_ids("and")
    for part in ("train", "heldout"):
        whole: Corpus = Corpus.load(tmp_path / "corpus")
        for length in (5, 500):
            found = whole.segments(part, length).shuffled()
            assert found.languages is not None
            german = np.array([set(row.tolist()) <= set(range(5, 25)) for row in found])
            assert (german == (found.languages == 0)).mean() > 0.9  # some pieces of English are numbers alone
        tokens = corpus.meta.languages["de"][part] + corpus.meta.languages["en"][part]
        assert tokens == corpus.meta.tokens[part]
    assert harbour not in np.concatenate(corpus.train[corpus.train.languages == 0])
    assert build(sources, tokenizer, tmp_path / "corpus", heldout_fraction=0.2).content_hash == corpus.content_hash
    pieces = build(sources, tokenizer, tmp_path / "pieces", texts=True, piece=8).segments("train", 8)
    assert pieces.texts is not None
    assert pieces.languages is not None
    assert all(
        ("and" in one or "the" in one) <= bool(tongue)
        for one, tongue in zip(pieces.texts, pieces.languages, strict=True)
    )


def test_a_share_is_part_of_what_a_corpus_is(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    plain = content_of([f"{folder}/de.txt"], "text").hash
    named = content_of([f"de={folder}/de.txt"], "text").hash
    shared = content_of([f"de:1={folder}/de.txt"], "text").hash
    assert len({plain, named, shared}) == 3


def test_a_language_needs_text_in_both_parts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    write(folder / "one.txt", ["Nur ein einziger Satz."])
    with pytest.raises(InvalidCorpus, match=r"no text of language 'de' is in the \w+ part of the corpus; give more"):
        build([f"de={folder}/one.txt", f"en={folder}/en.txt"], tiny_tokenizer(), tmp_path / "corpus")


def test_damaged_languages_are_no_corpus(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    build([f"de={folder}/de.txt", f"en={folder}/en.txt"], tiny_tokenizer(), tmp_path / "corpus")
    np.save(tmp_path / "corpus" / "train.languages.npy", np.zeros(3, np.uint8))
    with pytest.raises(InvalidCorpus, match="the train tokens and languages do not fit each other"):
        Corpus.load(tmp_path / "corpus")


def test_documents_of_one_language_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", ["one two three"])
    assert list(read([str(path)])) == [Document("one two three")]
    assert build([write(tmp_path / "b.txt", sentences(100))], tiny_tokenizer(), tmp_path / "c").meta.languages is None


def two_languages(folder: Path) -> list[str]:
    """Sources of sentences that the tiny teacher can read, said to be of two languages."""
    found = tiny_sentences(300)
    write(folder / "aa.txt", [one for one in found if one.startswith(("harbour", "school"))])
    write(folder / "bb.txt", [one for one in found if not one.startswith(("harbour", "school"))])
    return [f"aa={folder}/aa.txt", f"bb={folder}/bb.txt"]


def test_a_search_tells_the_error_of_each_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    config = tiny_config(tmp_path, corpus=two_languages(tmp_path), strategy="fptas", epsilon=9, steps=2)
    selection = extract(config, tmp_path / "run")
    assert selection.winner is not None
    assert selection.languages is not None
    bench = Workbench.open(config, tmp_path / "run")
    counts = np.bincount(bench.material.split(config, config.max_length - 2)[1].languages)
    whole = sum(error * count for error, count in zip(selection.languages.values(), counts, strict=True)) / counts.sum()
    assert whole == pytest.approx(selection.winner.error, rel=1e-4)
    assert len(set(selection.languages.values())) == 2
    assert RunFolder(tmp_path / "run").read(Selection) == selection
    show_selection(selection, tmp_path / "run")
    said = by_language(selection.languages)
    assert said.startswith("error by language: ")
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("losses", [{}, {"loss_mlm": 1.0}])
def test_a_pretraining_tells_the_loss_of_each_language(tmp_path: Path, losses: dict[str, float]) -> None:
    config = tiny_pretraining(tmp_path, masked_lm=bool(losses), corpus=two_languages(tmp_path), heldout=40, **losses)
    found = train(tmp_path / "run", config)
    last = found.heldout[-1]
    alone = last["loss_aa"], last["loss_bb"]
    assert min(alone) < last["loss"] < max(alone)
    names = [row.cells[0].text for row in before_and_after(found).rows]
    assert names[-2:] == ["weighted sum, aa", "weighted sum, bb"]
    assert "loss_aa" in (tmp_path / "run" / "pretrained" / "README.md").read_text(encoding="utf-8")


def test_a_script_that_the_tokenizer_cannot_write_is_refused(tmp_path: Path) -> None:
    english, _ = two_languages(tmp_path)
    write(tmp_path / "ru.txt", [f"старая лодка у причала номер {number}" for number in range(100)])
    config = tiny_config(tmp_path, corpus=[english, f"ru={tmp_path}/ru.txt"])
    with pytest.raises(InvalidCorpus, match=r"language 'ru' cannot be written by the tokenizer: 7\d\.\d% of it"):
        Workbench.open(config, tmp_path / "run")


def test_a_corpus_that_a_cut_tokenizer_cannot_write_is_refused(tmp_path: Path) -> None:
    """Words of the tiny tokenizer have no pieces: those that are cut off are unknown."""
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(AXES | {"vocabulary": [40]}), encoding="utf-8")
    config = tiny_config(tmp_path, corpus=two_languages(tmp_path))
    with pytest.raises(InvalidCorpus, match=r"language '..' .* and 0.0% with its whole vocabulary .*; keep more"):
        Workbench.open(config, tmp_path / "run").keeping(40)


def test_bytes_of_characters_count_as_unwritten(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tiny_sentences(50), 400)
    lines = [f"старая лодка у причала номер {number}" for number in range(100)]
    path = write(tmp_path / "a.txt", lines)
    shares = unwritten_by_language(build([f"ru={path}"], tokenizer, tmp_path / "corpus"), tokenizer)
    assert 0.8 < shares["ru"] < 1
    with pytest.raises(InvalidCorpus, match=r"language 'ru' cannot be written .*; start from an encoder"):
        check_written(shares)
    assert unwritten_by_language(build([path], tokenizer, tmp_path / "corpus"), tokenizer) == {}
