"""The model card: facts are shown, what is missing is not, the licence is carried over, no name breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from subarch.show.card import SECTIONS, USES, card, carried_licence, write_card

FACTS: dict[str, Any] = {
    "task": {"name": "rte", "labels": "entailment, not_entailment"},
    "file": {"runtime": "ONNX Runtime"},
    "parity": [{"output": "logits", "mean": "1.0"}],
    "compared": {"tokens": 12},
    "architecture": {"D-A-H-I": "2-12-384-512", "parameters": 13_817_088, "kept from the teacher": None},
    "why": "least error under a third of the latency",
    "data": {"corpus": ["manuals", "docs"], "sequences": 40_000},
    "loss": {"embedding": 1.0, "relations": 0.25},
    "training": {"learning rate": 1e-4, "batch size": 16},
    "agora": {"iterations": 3},
    "cost": {"steps": 1200, "seconds": 901.26, "machine": "2 cores"},
    "quality": [{"model": "this", "Spearman": 0.834}, {"model": "teacher", "Spearman": 0.8671234, "ms": 12.3}],
    "labels": "accuracy on 12 held-out inputs: 0.900, teacher 0.910",
    "dimensions": [{"kept": 16, "Spearman": 0.8}],
    "latency": [{"model": "this", "ms": 3.5, "batch": 1}],
    "limits": ["English only"],
}


def folder_of(path: Path, sentence: bool = False) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if sentence:
        (path / "modules.json").write_text("[]")
    return path


def teacher_of(path: Path, readme: str | bytes | None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if readme is not None:
        (path / "README.md").write_bytes(readme.encode() if isinstance(readme, str) else readme)
    return path


def split(text: str) -> tuple[dict[str, Any], str]:
    """Front matter, parsed, and what comes after it."""
    empty, front, body = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def headings(body: str) -> list[str]:
    return [line for line in body.splitlines() if line.startswith("#")]


def test_a_sentence_encoder_with_all_facts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "small", sentence=True)
    teacher = teacher_of(tmp_path / "big", "---\nlanguage: en\nlicense: apache-2.0\n---\n# Big\n")
    write_card(folder, FACTS | {"teacher": str(teacher)})
    front, body = split((folder / "README.md").read_text(encoding="utf-8"))
    assert front == {
        "license": "apache-2.0",
        "base_model": "big",
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["subarch", "distillation"],
    }
    assert headings(body) == [
        "# small",
        *(f"## {heading}" for heading in SECTIONS.values()),
        "## How to load",
        "## Limits",
        "## Licence",
    ]
    assert "| D-A-H-I | 2-12-384-512 |\n| parameters | 13,817,088 |\n\n" in body  # what is None is left out
    assert "| corpus | manuals, docs |\n| sequences | 40,000 |" in body
    assert "| seconds | 901.3 |" in body
    table = "| model | Spearman | ms |\n| --- | --- | --- |\n| this | 0.834 |  |\n| teacher | 0.8671 | 12.3 |"
    assert table in body
    assert "SentenceTransformer(" in body
    assert "- English only\n- " in body
    assert "license: apache-2.0" in body
    assert str(tmp_path) not in body


def test_a_masked_lm_without_facts_invents_none(tmp_path: Path) -> None:
    text = card(folder_of(tmp_path / "plain"), {"quality": [], "why": None, "cost": {}})
    front, body = split(text)
    assert front == {"library_name": "transformers", "pipeline_tag": "fill-mask", "tags": ["subarch"]}
    assert headings(body) == ["# plain", "## How to load", "## Limits", "## Licence"]
    assert 'pipeline("fill-mask"' in body
    assert "None" not in body


@pytest.mark.parametrize("use", USES)
def test_the_code_to_load_is_python(tmp_path: Path, use: str) -> None:
    text = card(folder_of(tmp_path / "model"), {"use": use})
    compile(text.split("```python\n")[1].split("```")[0], "card", "exec")


def test_what_was_fine_tuned_names_its_encoder_before_its_teacher(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"use": "pair", "encoder": tmp_path / "small", "teacher": tmp_path / "big"}
    front, body = split(card(folder_of(tmp_path / "rte"), facts))
    assert (front["base_model"], front["pipeline_tag"]) == ("small", "text-classification")
    assert front["tags"] == ["subarch", "distillation"]
    assert "A classifier of pairs of texts, fine-tuned from small, a student of big; made with subarch." in body
    stages = {"encoder": tmp_path / "mine" / "pretrained", "teacher": tmp_path / "theirs" / "finetuned" / "rte"}
    front, body = split(card(folder_of(tmp_path / "rte"), facts | stages))
    assert front["base_model"] == "pretrained"
    assert "fine-tuned from pretrained (mine), a student of rte (theirs); made with subarch." in body
    front, body = split(card(folder_of(tmp_path / "rte"), facts | {"teacher": None}))
    assert front["tags"] == ["subarch"]
    assert "fine-tuned from small; made with subarch." in body


# The licence


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\n---\n", {"license": "mit"}),
        ("\ufeff---\r\nlicense: mit\r\n---\r\ntext", {"license": "mit"}),
        ("---\nlicense: [mit, cc0-1.0]\ntags: [a]\n---\n", {"license": ["mit", "cc0-1.0"]}),
        (
            "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n",
            {"license": "other", "license_name": "mine", "license_link": "LICENSE"},
        ),
        (None, {}),
        ("# a card\nlicense: mit\n", {}),
        ("---\ntags: [a]\n---\n", {}),
        ("---\nlicense: 3\n---\n", {}),
        ("---\nlicense: []\n---\n", {}),
        ("---\nlicense:\n---\n", {}),
        ("---\n- license\n---\n", {}),
        ("---\nlicense: [mit\n---\n", {}),
        ("---\nlicense: mit\n", {}),
        (b"---\nlicense: \xff\n---\n", {}),
    ],
)
def test_the_licence_is_carried_over_or_said_to_be_unknown(
    tmp_path: Path, readme: str | bytes | None, licence: dict[str, Any]
) -> None:
    teacher = teacher_of(tmp_path / "teacher", readme)
    assert carried_licence(teacher) == licence
    front, body = split(card(folder_of(tmp_path / "model"), {"teacher": str(teacher)}))
    said = {key: value for key, value in front.items() if key.startswith("license")}
    assert said == (licence or {"license": "other", "license_name": "unknown"})
    assert ("Unknown: " in body) == (not licence)
    assert ("Carried over from teacher" in body) == bool(licence)


@pytest.mark.parametrize(
    ("encoder", "teacher", "front", "words"),
    [
        ("mit", "mit", {"license": "mit"}, [True, True]),
        ("mit", "apache-2.0", {"license": "other", "license_name": "several"}, [True, True]),
        ("mit", None, {"license": "other", "license_name": "unknown"}, [True, False]),
        (None, "mit", {"license": "other", "license_name": "unknown"}, [False, True]),
    ],
)
def test_a_licence_is_claimed_only_if_encoder_and_teacher_agree(
    tmp_path: Path, encoder: str | None, teacher: str | None, front: dict[str, str], words: list[bool]
) -> None:
    said = {"encoder": encoder, "teacher": teacher}
    facts = {role: teacher_of(tmp_path / role, name and f"---\nlicense: {name}\n---\n") for role, name in said.items()}
    found, body = split(card(folder_of(tmp_path / "model"), facts))
    assert {key: value for key, value in found.items() if key.startswith("license")} == front
    for (role, name), known in zip(said.items(), words, strict=True):
        sentence = f"Carried over from {role}, from whose weights or outputs this model was made: license: {name}."
        assert (sentence in body) == known
        assert (f"Unknown: the folder of {role}," in body) == (not known)


# Hostile names

HOSTILE = "a: \"b\" 'c' | d\n---\n# not a heading\n| x | [link](y) <script>`*\\ {e} &lt; \0\ud800 é"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    facts = {key: {HOSTILE: HOSTILE} for key in SECTIONS} | {"quality": [{HOSTILE: HOSTILE}]}
    facts |= dict.fromkeys(("why", "labels"), HOSTILE)
    facts |= {"limits": [HOSTILE], "teacher": tmp_path / HOSTILE.replace("\0", "").replace("/", "")}
    front, body = split(card(folder_of(tmp_path / "m"), facts))
    assert front["base_model"] == HOSTILE.replace("\0", "").replace("/", "")
    assert len(headings(body)) == len(SECTIONS) + 4
    assert "<script>" not in body
    assert "](y)" not in body.replace("\\]", "")
    rows = [line for line in body.splitlines() if line.startswith("|")]
    columns = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in rows]
    # a heading row, a rule and a row each: of two columns, and of one in the table of quality
    assert sorted(columns) == [2] * 3 + [3] * 36
    assert not any(line.startswith("---") for line in body.splitlines())
    body.encode("utf-8")


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_makes_a_card_whose_front_matter_parses(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str
) -> None:
    teacher = Path("/nowhere") / (name.replace("/", "").replace("\0", "") or "t")
    folder = folder_of(tmp_path_factory.getbasetemp() / "card")
    facts = {"teacher": teacher, "why": text, "data": {text: text}, "quality": [{text: 1.0}], "limits": [text]}
    write_card(folder, facts)
    front, body = split((folder / "README.md").read_text(encoding="utf-8"))
    assert front["base_model"] == teacher.name
    assert [line for line in headings(body) if not line.startswith("# ")][-3:] == [
        "## How to load",
        "## Limits",
        "## Licence",
    ]
