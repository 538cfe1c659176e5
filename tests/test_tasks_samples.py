"""The real samples beside the repository: every task is read with the row counts that their README states."""

from __future__ import annotations

from pathlib import Path

import pytest

from subarch.tasks import read, statistics

# train, validation, test rows; None: not there. Of MultiRC, passages
COUNTS: dict[str, tuple[str, tuple[int | None, int | None, int | None]]] = {
    "cola": ("CoLA", (8551, 1043, 1063)),
    "sst2": ("SST-2", (67349, 872, 1821)),
    "mrpc": ("MRPC", (3667, 408, 1725)),
    "stsb": ("STS-B", (5749, 1500, 1379)),
    "rte": ("RTE", (2490, 277, 3000)),
    "wnli": ("WNLI", (635, 71, 146)),
    "qnli": ("QNLI", (8999, 5463, 5463)),
    "mnli": ("MNLI", (8999, 1000, None)),
    "qqp": ("QQP", (8999, 1000, None)),
    "ax": ("GLUE-diagnostic", (None, None, 1104)),
    "boolq": ("SuperGLUE-BoolQ", (32, 3270, None)),
    "cb": ("SuperGLUE-CB", (32, 56, None)),
    "multirc": ("SuperGLUE-MultiRC", (32, 83, None)),
    "superglue-rte": ("SuperGLUE-RTE", (32, 277, None)),
    "wic": ("SuperGLUE-WiC", (32, 638, None)),
    "wsc": ("SuperGLUE-WSC", (32, 104, None)),
    "copa": ("COPA-full", (400, 100, 500)),
    "dream": ("DREAM", (6116, 2040, 2041)),
}
UNLABELLED = {"cola", "sst2", "rte", "wnli", "qnli", "ax"}


@pytest.fixture(scope="module")
def samples(shared_data: Path) -> Path:
    folder = shared_data / "tasks"
    if not folder.is_dir():
        pytest.skip("the samples of tasks are not beside this repository")
    return folder


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
        assert read(name, samples, part) == found  # found below a folder of all tasks too


@pytest.mark.parametrize("name", [name for name, (folder, _) in COUNTS.items() if folder.startswith("SuperGLUE")])
def test_few_shot_rows(samples: Path, name: str) -> None:
    folder = samples / COUNTS[name][0]
    dev, train = read(name, folder, "dev32"), read(name, folder, "train")
    for part in (dev, train):
        assert len({example.id.split("-")[0] for example in part}) == 32


def test_race_is_divided_by_passage(samples: Path) -> None:
    whole = read("race", samples, "all")
    parts = [read("race", samples, part) for part in ("train", "validation", "test")]
    assert len(whole) == 1000
    assert statistics(whole)["counts"] == {"A": 191, "B": 298, "C": 277, "D": 234}
    assert sorted(example.id for part in parts for example in part) == sorted(example.id for example in whole)
    groups = [{example.group for example in part} for part in parts]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert [len(part) / 1000 for part in parts] == pytest.approx([0.7, 0.15, 0.15], abs=0.05)
    middle, high = (read(f"race-{part}", samples, "all") for part in ("middle", "high"))
    assert (len(middle), len(high)) == (500, 500)
    assert {example.group[:4] for example in middle} == {"midd"}
    assert {example.id for example in read("race-high", samples, "test")} <= {example.id for example in parts[2]}


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
    boolq = statistics(read("boolq", samples, "validation"))
    assert boolq["counts"] == {"False": 1237, "True": 2033}
    assert boolq["groups"] == 2651  # articles, not the 2939 passages
    assert boolq["majority_share"] == pytest.approx(0.6217, abs=1e-4)
    assert statistics(read("qnli", samples, "validation", layout="sample"))["rows"] == 1000
