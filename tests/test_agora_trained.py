"""Agora with real parts, tiny: an encoder that is fine-tuned, τ by its own masked-LM head, and a teacher by rule."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, processors

from subarch.finetuning.agora import agora
from subarch.finetuning.config import FitSettings, Theta
from subarch.finetuning.fit import fit
from subarch.finetuning.neighbours import Neighbourhood, identities
from subarch.models.heads import labels_of, predict
from subarch.tasks import TASKS, Example, Examples, score
from subarch.text.read import identity
from tiny import tiny_sentences, tiny_teacher

SETTINGS = FitSettings(max_length=64, threads=1)


def student_at(folder: Path) -> Path:
    """A tiny encoder with masked-LM head, whose tokenizer knows pairs of texts."""
    tiny_teacher(folder, masked_lm=True, layers=1)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def by_topic(examples: Examples) -> list[int]:
    return [int(any(word in row.texts[0] for word in ("harbour", "kitchen"))) for row in examples]


def part(name: str, seed: int, count: int) -> Examples:
    rows = tuple(Example(f"{name}{n}", str(n), (text,)) for n, text in enumerate(tiny_sentences(count, seed)))
    bare = Examples(TASKS["sst2"], name, "made", rows)
    labelled = [
        Example(row.id, row.group, row.texts, label=label) for row, label in zip(rows, by_topic(bare), strict=True)
    ]
    return Examples(bare.task, name, "made", tuple(labelled))


def test_it_runs_on_real_parts_and_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    student = student_at(tmp_path / "student")
    train, dev, held = part("train", 1, 40), part("dev", 2, 16), part("test", 3, 16)
    tau = Neighbourhood.load([train, dev, held], encoder=student, masked_lm=student)
    seen: list[Examples] = []

    def fitted(data: Examples, dev: Examples, theta: Theta, folder: Path) -> object:
        seen.append(data)
        return fit(student, data, dev, theta, folder, settings=SETTINGS)

    thetas = [Theta(1e-3, epochs=1, batch_size=8), Theta(1e-5, epochs=1, batch_size=8)]
    run = partial(agora, thetas, train, dev, tmp_path / "agora", teacher=by_topic, transform=tau)
    outcome = run(fit=fitted)  # type: ignore[arg-type]
    assert [len(data) for data in seen] == [40, 40, 40 + outcome.record.iterations[0].points]
    new = seen[-1].rows[40:]
    assert new
    assert not {identity(row.texts[0]) for row in new} & {*identities(train), *identities(dev), *identities(held)}
    assert set(outcome.record.iterations[0].methods) == {"edits", "infilling"}
    # what is handed over is a stock folder; its score on what nothing has seen can be asked for
    again = score(dev, labels_of(dev.task, predict(outcome.model, dev, max_length=64)))
    with pytest.warns(UserWarning, match="no estimate"):
        assert again["accuracy"] == pytest.approx(outcome.dev_score)
    assert run(fit=lambda *_: pytest.fail("trained again")) == outcome
