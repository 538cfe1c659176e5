"""The real samples beside the repository: every task is read with the row counts that their README states."""

from __future__ import annotations

from pathlib import Path

import pytest

from subarch.tasks import TASKS, own_task, read, statistics, survey
from subarch.tasks.tagging import spans

# train, validation, test rows; None: not there. Of MultiRC, passages
COUNTS: dict[str, tuple[str, tuple[int | None, int | None, int | None]]] = {
    "cola": ("CoLA", (8551, 1043, 1063)),
    "sst2": ("SST-2", (67349, 872, 1821)),
    "mrpc": ("MRPC", (3667, 408, 1725)),
    "stsb": ("STS-B", (5749, 1500, 1379)),
    "rte": ("RTE", (2490, 277, 3000)),
    "wnli": ("WNLI", (635, 71, 146)),
    "qnli": ("QNLI", (None, 5463, 5463)),
    "ax": ("GLUE-diagnostic", (None, None, 1104)),
    "boolq": ("SuperGLUE-BoolQ", (32, 3270, None)),
    "cb": ("SuperGLUE-CB", (32, 56, None)),
    "multirc": ("SuperGLUE-MultiRC", (32, 83, None)),
    "superglue-rte": ("SuperGLUE-RTE", (32, 277, None)),
    "wic": ("SuperGLUE-WiC", (32, 638, None)),
    "wsc": ("SuperGLUE-WSC", (32, 104, None)),
    "copa": ("COPA-full", (400, 100, 500)),
    "dream": ("DREAM", (6116, 2040, 2041)),
    "ner": ("WNUT-17", (3394, 1009, 1287)),
}
UNLABELLED = {"cola", "sst2", "rte", "wnli", "qnli", "ax"}


@pytest.fixture(scope="module")
def samples(shared_data: Path) -> Path:
    folder = shared_data / "tasks"
    if not folder.is_dir():
        pytest.skip("the samples of tasks are not beside this repository")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_row_counts(samples: Path, name: str) -> None:
    folder, counts = COUNTS[name]
    for part, count in zip(("train", "validation", "test"), counts, strict=True):
        if count is None:
            continue
        found = read(name, samples / folder, part)
        assert len({example.id.split("-")[0] for example in found} if name == "multirc" else found) == count
        assert (found.labels is None) == (part == "test" and name in UNLABELLED)
        assert all(text for example in found for text in example.texts)
        signs = {"wic": ("* ", " *"), "wsc": ("* ", " *", "# ", " #")}.get(name, ())
        assert all(sign in text for sign in signs for example in found for text in example.texts)
        if folder in TASKS[name].folders:
            assert read(name, samples, part) == found  # found below a folder of all tasks too


def test_tags_of_wnut_17(samples: Path) -> None:
    found = read("ner", samples, "test")
    assert len(found.task.labels) == 13
    assert sum(len(spans(one.golds)) for one in found) == 1079
    assert survey(samples, {"ner": TASKS["ner"]})["ner"]["test"]["layout"] == "wnut17"


def test_questions_of_race_in_one_file_are_ones_own_data(samples: Path) -> None:
    file = samples / "RACE-sample" / "race.jsonl"
    task = own_task(
        file, first="article", second="question", choices="options", label="answer", group="example_id", kind="choice"
    )
    whole = read(task, file, "all")
    parts = [read(task, file, part) for part in ("train", "validation", "test")]
    assert len(whole) == 1000
    assert statistics(whole)["counts"] == {"0": 191, "1": 298, "2": 277, "3": 234}  # letters A to D
    assert sorted(example.id for part in parts for example in part) == sorted(example.id for example in whole)
    groups = [{example.group for example in part} for part in parts]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert [len(part) / 1000 for part in parts] == pytest.approx([0.7, 0.15, 0.15], abs=0.05)


@pytest.mark.parametrize("name", ["MNLI", "QNLI", "QQP"])
def test_samples_of_others_are_ones_own_data(samples: Path, name: str) -> None:
    task = own_task(samples / name / "sample_train.json", first="text_a", second="text_b")
    assert len(read(task, samples / name / "sample_train.json", "all")) == 8999


def test_the_labelled_test_rows_are_those_to_submit_in_the_same_order(samples: Path) -> None:
    for name in ("mrpc", "stsb"):
        gold, blind = read(name, samples, "test"), read(name, samples, "test", layout="glue")
        assert blind.labels is None
        assert gold.labels is not None
        assert [(row.id, row.texts) for row in gold] == [(row.id, row.texts) for row in blind]


def test_mrpc_from_the_original_files(samples: Path) -> None:
    train, dev = (read("mrpc", samples, part, layout="msr") for part in ("train", "validation"))
    assert (len(train), len(dev)) == (3668, 408)
    # the download lists validation rows by itself; the same pairs, in an order of its own
    assert {row.texts for row in dev} == {row.texts for row in read("mrpc", samples, "validation")}


def test_copa_parts_are_those_of_superglue(samples: Path) -> None:
    xml, jsonl = (
        read("copa", samples / "COPA-full", "validation"),
        read("copa", samples / "SuperGLUE-COPA", "validation"),
    )
    assert [(row.id, row.texts, row.choices, row.label) for row in xml] == [
        (row.id, row.texts, row.choices, row.label) for row in jsonl
    ]


def test_known_shares_of_labels(samples: Path) -> None:
    boolq = statistics(read("boolq", samples / "SuperGLUE-BoolQ", "validation"))
    assert boolq["counts"] == {"False": 1237, "True": 2033}
    assert boolq["groups"] == 2651  # articles, not the 2939 passages
    assert boolq["majority_share"] == pytest.approx(0.6217, abs=1e-4)
