"""Reading tasks: every layout there is, and every way in which a file can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from subarch.errors import InvalidTask
from subarch.tasks import TASKS, Examples, find, read, survey, task_named
from task_layouts import BENCHMARKS, HUB, PASSAGE, write, write_hub, write_json, write_jsonl

GLUE_HEADER = "index\tsentence1\tsentence2\tlabel\n"


def part_of(name: str) -> str:
    return "train" if "train" in TASKS[name].parts else "test" if name.startswith("ax") else "validation"


def texts(examples: Examples) -> list[tuple[str, ...]]:
    return [example.texts for example in examples]


# every layout


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub(tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_hub_layout(hub: Path, name: str) -> None:
    benchmark = {"superglue": "super_glue"}.get(TASKS[name].benchmark, TASKS[name].benchmark)
    rows, (expected, choices, label) = HUB[name]
    for source in (hub / benchmark, hub):  # the data set, and a folder of data sets
        if source == hub and name == "superglue-rte":
            continue  # both benchmarks have a folder rte only inside their own
        found = read(name, source, part_of(name))
        assert len(found) == len(rows)
        assert (found[0].texts, found[0].choices, found[0].label) == (expected, choices, label)


def test_ids_and_groups_are_the_benchmarks_own(hub: Path) -> None:
    assert read("mrpc", hub, "train")[0].id == "7"
    assert read("multirc", hub, "train")[0].id == "4-5-6"
    record = read("record", hub, "train")[0]
    assert (record.id, record.golds) == ("3-9", ("Bob Ray", "Bob"))
    assert record.pairs()[2] == (PASSAGE, "Bob Ray stayed in Rome")
    assert read("race", hub, "train")[0].group == "high3.txt"
    assert read("wic", hub, "train")[0].group == "class"


def test_a_part_that_the_hub_leaves_unlabelled(tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "stsb": [{"sentence1": "a", "sentence2": "b", "label": -1.0, "idx": 0}],
        "copa": [HUB["copa"][0][0] | {"label": -1}],
        "record": [HUB["record"][0][0] | {"answers": []}],
    }
    for name, table in rows.items():
        (tmp_path / name).mkdir()
        parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / name / "test-00000-of-00001.parquet")
        assert read(name, tmp_path, "test").labels is None
    parquet.write_table(pyarrow.Table.from_pylist(rows["stsb"]), tmp_path / "stsb" / "train-0.parquet")
    with pytest.raises(InvalidTask, match=r"row 1: no label .*only the part test"):
        read("stsb", tmp_path, "train")


def test_a_data_set_is_read_by_name_and_configuration(tmp_path: Path) -> None:
    folder = write_hub(tmp_path) / "glue"
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: validation\n    path: {name}/validation-*\n"
        for name in ("rte", "cola")
    )
    write(folder / "README.md", f"---\nconfigs:\n{configs}---\n")
    found = read("rte", f"datasets:{folder}", "validation")
    assert (texts(found), found.labels) == ([("a", "b")], (0,))
    with pytest.raises(InvalidTask, match="cannot be loaded"):
        read("rte", f"datasets:{folder}", "train")


def test_the_glue_download(tmp_path: Path) -> None:
    write(tmp_path / "CoLA" / "train.tsv", "gj04\t1\t\tThey ran.\ngj04\t0\t*\tRan they the.")
    write(tmp_path / "CoLA" / "test.tsv", "index\tsentence\n5\tIt rains.\n")
    train, test = read("cola", tmp_path, "train"), read("cola", tmp_path, "test")
    assert (texts(train), train.labels, [row.id for row in train]) == (
        [("They ran.",), ("Ran they the.",)],
        (1, 0),
        ["0", "1"],
    )
    assert (texts(test), test.labels, test[0].id) == ([("It rains.",)], None, "5")

    write(
        tmp_path / "QQP" / "train.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n9\t1\t2\ta?\tb?\t1\n3\tcut"
    )
    with pytest.warns(UserWarning, match="1 rows are cut off"):
        assert read("qqp", tmp_path, "train").labels == (1,)

    mnli = "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n0\tfiction\ta\tb\tneutral\t{}\n"
    write(tmp_path / "MNLI" / "train.tsv", mnli.format("contradiction"))
    write(tmp_path / "MNLI" / "dev_matched.tsv", mnli.format("neutral"))
    write(tmp_path / "MNLI" / "dev_mismatched.tsv", mnli.format("entailment"))
    assert read("mnli", tmp_path, "train").labels == (2,)
    assert read("mnli", tmp_path, "dev").labels == (1,)
    assert read("mnli-mm", tmp_path, "dev").labels == (0,)
    with pytest.raises(InvalidTask, match="mnli-mm has no part 'train'; it has validation, test"):
        read("mnli-mm", tmp_path, "train")

    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    write(tmp_path / "STS-B" / "dev.tsv", header + "0\tg\tf\ty\t1\tn\tn\ta\tb\t4.750\n")
    write(tmp_path / "STS-B" / "sts-test.tsv", "g\tf\ty\t1\t2.5\tc\td\ng\tf\ty\t1\t3\te\tf\tlicence\tlicence\n")
    assert read("stsb", tmp_path, "validation").labels == (4.75,)
    gold = read("stsb", tmp_path, "test")
    assert (texts(gold), gold.labels) == ([("c", "d"), ("e", "f")], (2.5, 3.0))


def test_mrpc_as_microsoft_and_as_glue_give_it(tmp_path: Path) -> None:
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    rows = '1\t10\t11\t" He said so .\tSo " he " said .\n0\t20\t21\tc\td\n0\t11\t10\te\tf\n'
    write(tmp_path / "msr_paraphrase_train.txt", header + rows)
    write(tmp_path / "msr_paraphrase_test.txt", header + "1\t1\t2\tg\th\n")
    with pytest.raises(InvalidTask, match="no part train"):
        read("mrpc", tmp_path, "train")  # without the list nobody knows which rows are for validation
    write(tmp_path / "dev_ids.tsv", "20\t21\n")
    assert texts(read("mrpc", tmp_path, "train")) == [('" He said so .', 'So " he " said .'), ("e", "f")]
    assert texts(read("mrpc", tmp_path, "validation")) == [("c", "d")]
    assert read("mrpc", tmp_path, "test").labels == (1,)
    write(tmp_path / "test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tg\th\n")
    assert read("mrpc", tmp_path, "test", layout="glue").labels is None
    with pytest.raises(InvalidTask, match="mrpc has no layout 'gleu'; it has glue, hub, msr"):
        read("mrpc", tmp_path, "test", layout="gleu")


def test_the_superglue_download(tmp_path: Path) -> None:
    flat = {"boolq": ("BoolQ", True), "cb": ("CB", "neutral"), "wic": ("WiC", False), "copa": ("COPA", 1)}
    for name, (folder, label) in flat.items():
        write_jsonl(tmp_path / folder / "val.jsonl", [HUB[name][0][0] | {"label": label}])
        write_jsonl(tmp_path / folder / "test.jsonl", [{k: v for k, v in HUB[name][0][0].items() if k != "label"}])
        expected = {"boolq": 1, "cb": 2, "wic": 0, "copa": 1}[name]
        assert read(name, tmp_path, "val").labels == (expected,)
        assert read(name, tmp_path, "test").labels is None
        assert read(name, tmp_path, "val")[0].texts == HUB[name][1][0]

    row = HUB["wsc"][0][0]
    target = {key: value for key, value in row.items() if key.startswith("span")}
    write_jsonl(tmp_path / "WSC" / "train.jsonl", [{"text": row["text"], "target": target, "idx": 0, "label": False}])
    assert texts(read("wsc", tmp_path, "train")) == [HUB["wsc"][1][0]]

    answers = [{"text": "yes", "idx": 6, "label": 1}, {"text": "no", "idx": 7, "label": 0}]
    passage = {"text": "p", "questions": [{"question": "q?", "answers": answers, "idx": 5}]}
    write_jsonl(tmp_path / "MultiRC" / "train.jsonl", [{"idx": 4, "passage": passage}])
    found = read("multirc", tmp_path, "train")
    assert [(one.id, one.texts, one.label) for one in found] == [
        ("4-5-6", ("p", "q? yes"), 1),
        ("4-5-7", ("p", "q? no"), 0),
    ]
    assert found[0].group == found[1].group

    spans = [
        {"start": PASSAGE.index(name), "end": PASSAGE.index(name) + len(name) - 1}
        for name in ("Bob Ray", "Ann", "Rome")
    ]
    query = {"query": "@placeholder stayed in Rome", "idx": 9, "answers": [{"start": 32, "end": 38, "text": "Bob Ray"}]}
    passages = [{"idx": 3, "passage": {"text": PASSAGE, "entities": spans}, "qas": [query]}]
    write_jsonl(tmp_path / "ReCoRD" / "val.jsonl", passages)
    cloze = read("record", tmp_path, "val")[0]
    assert (cloze.choices, cloze.label, cloze.golds) == (("Ann", "Bob Ray", "Rome"), 1, ("Bob Ray",))

    for name, columns in (("AX-b", ("sentence1", "sentence2")), ("AX-g", ("premise", "hypothesis"))):
        row = {columns[0]: "a", columns[1]: "b", "label": "not_entailment", "idx": 0}
        write_jsonl(tmp_path / name / f"{name}.jsonl", [row])
        assert read(name.lower(), tmp_path, "test").labels == (1,)


def test_the_race_and_dream_downloads(tmp_path: Path) -> None:
    for part, number in (("middle", 7), ("high", 8)):
        passage = {
            "answers": ["B", "D"],
            "options": [["w", "x", "y", "z"], ["1", "2", "3", "4"]],
            "questions": ["The boy _ .", "Why?"],
            "article": f"text {number}",
            "id": f"{part}{number}.txt",
        }
        write_json(tmp_path / "RACE" / "dev" / part / f"{number}.txt", passage)
    both = read("race", tmp_path, "dev")
    assert [one.group for one in both] == ["high8.txt"] * 2 + ["middle7.txt"] * 2
    middle = read("race-middle", tmp_path / "RACE", "dev")
    assert middle.labels == (1, 3)
    assert middle[0].pairs()[1] == ("text 7", "The boy x .")
    assert middle[1].pairs()[3] == ("text 7", "Why? 4")

    question = {"question": "Who?", "choice": ["a", "b", "c"], "answer": "b"}
    write_json(tmp_path / "DREAM" / "train.json", [[["M: A.", "W: B."], [question, question | {"answer": "a"}], "2-9"]])
    dream = read("dream", tmp_path, "train")
    assert [(one.id, one.group, one.label) for one in dream] == [("2-9-0", "2-9", 1), ("2-9-1", "2-9", 0)]
    assert dream[0].texts == ("M: A. W: B.", "Who?")


def test_copa_as_its_authors_give_it(tmp_path: Path) -> None:
    item = '<item id="{n}" asks-for="effect" most-plausible-alternative="{a}"><p>p{n}</p><a1>x</a1><a2>y</a2></item>'
    items = "".join(item.format(n=n, a=n % 2 + 1) for n in range(500))
    write(tmp_path / "copa-dev.xml", f'<?xml version="1.0" encoding="UTF-8"?><copa-corpus>{items}</copa-corpus>')
    train, held = read("copa", tmp_path, "train"), read("copa", tmp_path, "validation")
    assert (len(train), len(held)) == (400, 100)
    assert (held[0].id, held[0].texts) == ("0", ("p400", "What happened as a result?"))
    assert (train[0].label, train[1].label) == (0, 1)


# what a file can have wrong


def rte(folder: Path, rows: str, file: str = "train.tsv", encoding: str = "utf-8") -> Path:
    write(folder / file, GLUE_HEADER + rows, encoding)
    return folder


def test_quotes_separators_and_line_ends_are_text(tmp_path: Path) -> None:
    # a lone quote, an unbalanced pair, U+2028, U+0085, a vertical tab: all inside fields; CR LF ends the lines
    rte(tmp_path, '0\t"He said\tso "" he\tentailment\r\n1\ta\u2028b\x85c\x0bd\t e \tnot_entailment\r\n')
    found = read("rte", tmp_path, "train")
    assert texts(found) == [('"He said', 'so "" he'), ("a\u2028b\x85c\x0bd", "e")]
    assert found.labels == (0, 1)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    rte(tmp_path, "4\ta\tb\tentailment\n", encoding="utf-8-sig")
    assert read("rte", tmp_path, "train")[0].id == "4"
    write(
        tmp_path / "jsonl" / "train.jsonl",
        json.dumps({"premise": "a", "hypothesis": "b", "label": "neutral"}),
        "utf-8-sig",
    )
    assert read("cb", tmp_path / "jsonl", "train").labels == (2,)


@pytest.mark.parametrize(
    ("rows", "encoding", "message"),
    [
        ("0\tcaf\u00e9\tb\tentailment\n", "latin-1", r"line 2: not UTF-8 at byte 37 \(0xe9.*iconv -f ISO-8859-1"),
        ("0\ta\tb\tentailment\n", "utf-16", "UTF-16; convert it"),
        ("0\ta\tb\tc\tentailment\n", "utf-8", r"line 2: 5 fields for 4 columns \(index, sentence1.*a tab"),
        ("0\ta\tb\tentailment\n1\ta\n", "utf-8", "line 3: 2 fields for 4 columns .*cut off"),
        ("0\ta\tb\tmaybe\n", "utf-8", "row 1: unknown label 'maybe'; those of rte are entailment, not_entailment"),
        ("0\ta\tb\t1\n", "utf-8", "unknown label '1'; those of rte are entailment, not_entailment$"),
        ("0\ta\tb\t\n", "utf-8", "row 1: no label .*only the part test"),
        ("0\ta\tb\tnan\n", "utf-8", "row 1: no label"),
        ("", "utf-8", "the part train of rte is empty"),
        ("0\ta\tb\tentailment\n0\tc\td\tentailment\n", "utf-8", "more than one row has the id '0'"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, rows: str, encoding: str, message: str) -> None:
    rte(tmp_path, rows, encoding=encoding)
    with pytest.raises(InvalidTask, match=message) as caught:
        read("rte", tmp_path, "train")
    assert "train.tsv" in str(caught.value)


def test_the_rows_of_another_task_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    # WNLI has RTE's columns, and its labels are numbers in the opposite order
    rte(tmp_path, "0\ta\tb\t1\n")
    assert read("wnli", tmp_path, "train").labels == (1,)
    with pytest.raises(InvalidTask, match="unknown label '1'"):
        read("rte", tmp_path, "train")
    write(tmp_path / "cola" / "train.tsv", "sentence\tlabel\nIt runs.\t1\n")
    with pytest.raises(InvalidTask, match="line 1: 2 fields for 4 columns"):
        read("cola", tmp_path, "train")


def test_keys_with_white_space_at_their_ends(tmp_path: Path) -> None:
    row = HUB["boolq"][0][0]
    write_jsonl(tmp_path / "train.jsonl", [{f" {key}": value for key, value in row.items()}])
    assert read("boolq", tmp_path, "train").labels == (1,)


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "index\tsentence1\tgold\n0\ta\tentailment\n")
    with pytest.raises(InvalidTask, match="row 1: no column 'sentence2'; found: 'index', 'sentence1', 'gold'"):
        read("rte", tmp_path, "train")


@pytest.mark.parametrize("score", ["nan", "", "high", "inf"])
def test_targets_that_are_no_numbers(tmp_path: Path, score: str) -> None:
    write(tmp_path / "train.tsv", f"sentence1\tsentence2\tscore\na\tb\t{score}\n")
    with pytest.raises(
        InvalidTask, match=r"row 1: (no label|the target 'high' is not a finite|the target 'inf' is not)"
    ):
        read("stsb", tmp_path, "train")


def test_a_test_part_is_labelled_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    rte(tmp_path, "0\ta\tb\tentailment\n1\tc\td\t\n", "test.tsv")
    with pytest.raises(InvalidTask, match="1 of 2 rows have a label"):
        read("rte", tmp_path, "test")
    rte(tmp_path, "0\ta\tb\t\n1\tc\td\t\n", "test.tsv")
    assert read("rte", tmp_path, "test").labels is None


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("cb", "train.jsonl", '{"premise": "a"}\n{"premise"', "train.jsonl, line 2: not JSON"),
        ("cb", "train.jsonl", "[1]\n[2]", "line 1: a JSON list, not an object"),
        (
            "cb",
            "train.jsonl",
            '{"premise": null, "hypothesis": "b", "label": "neutral"}',
            "'premise' holds None, not a text",
        ),
        (
            "wsc",
            "train.jsonl",
            '{"text": "a", "label": true, "idx": 0}',
            "line 1: not a record of the layout wsc .*'text', 'label'",
        ),
        ("copa", "copa-dev.xml", "<copa-corpus><item>", "not XML"),
        (
            "dream",
            "train.json",
            '[[["A: a."], [{"question": "q", "choice": ["a", "b"], "answer": "c"}], "1"]]',
            "none of the choices",
        ),
        (
            "dream",
            "train.json",
            '[[["A: a."], [{"question": "q", "choice": "ab", "answer": "a"}], "1"]]',
            "not a list of at least two",
        ),
        ("rte", "train-0.parquet", "PAR", "not a readable Parquet file"),
        ("wic", "train.jsonl", json.dumps(HUB["wic"][0][0] | {"end1": 99}), "characters 2 to 99 are not in"),
        ("record", "train-0.jsonl", "", "no part train of record; looked for train.jsonl"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, file: str, text: str, message: str) -> None:
    write(tmp_path / file, text)
    with pytest.raises(InvalidTask, match=message):
        read(name, tmp_path, "train")


def test_nothing_there_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "x")
    with pytest.raises(InvalidTask, match=r"no part train of sst2; looked for train.tsv, .*SST-2/.*found: notes.txt"):
        read("sst2", tmp_path, "train")
    rte(tmp_path / "RTE", "0\ta\tb\tentailment\n", "dev.tsv")
    with pytest.raises(InvalidTask, match="RTE has only validation"):
        read("rte", tmp_path, "train")
    with pytest.raises(InvalidTask, match="absent: no such file or folder"):
        read("rte", tmp_path / "absent", "train")
    with pytest.raises(InvalidTask, match="no task 'sst3'; did you mean sst2"):
        task_named("sst3")


def test_parts_of_two_distributions_are_not_mixed(tmp_path: Path) -> None:
    # the first folder that holds any part is taken for all: rows of one distribution may be training rows of another
    row = HUB["copa"][0][0]
    write_jsonl(tmp_path / "COPA" / "val.jsonl", [row])
    write_jsonl(tmp_path / "copa" / "train.jsonl", [row])
    assert set(find(TASKS["copa"], tmp_path)) == {"validation"}


def test_wsc_spans_that_lie(tmp_path: Path) -> None:
    row = {"text": 'He said "Ann, it works." And it did, like it.', "label": True, "idx": 0}

    def marked(noun: tuple[str, int], pronoun: tuple[str, int]) -> str:
        spans = {"span1_text": noun[0], "span1_index": noun[1], "span2_text": pronoun[0], "span2_index": pronoun[1]}
        write_jsonl(tmp_path / "train.jsonl", [row | {"target": spans}])
        return read("wsc", tmp_path, "train")[0].texts[0]

    # punctuation that is not of the span stays outside; a wrong number goes to the nearest place
    assert marked(("Ann", 2), ("it", 6)) == 'He said "# Ann #, it works." And * it * did, like it.'
    assert marked(("Ann", 0), ("it", 8)) == 'He said "# Ann #, it works." And it did, like * it *.'
    assert marked(("Ann and Tom", 2), ("it", 3)).startswith('He said "# Ann, * it * works #."')


def test_a_survey_says_what_is_there_and_what_is_broken(tmp_path: Path) -> None:
    rte(tmp_path / "RTE", "0\ta\tb\tentailment\n", "dev.tsv")
    rte(tmp_path / "RTE", "0\ta\tb\n")
    write(tmp_path / "train.tsv", "not\ta task\n")
    found = survey(tmp_path, TASKS)
    assert found["rte"]["validation"]["rows"] == 1
    assert "3 fields for 4 columns" in found["rte"]["train"]["problem"]
    assert [name for name, parts in found.items() if parts] == ["rte"]  # the stray train.tsv is nobody's
    assert set(survey(tmp_path / "RTE", TASKS)["rte"]) == {"train", "validation"}
    with pytest.raises(InvalidTask, match="no such folder"):
        survey(tmp_path / "absent", TASKS)


def test_the_command_lists_tasks_and_what_is_found(tmp_path: Path) -> None:
    rte(tmp_path / "RTE", "0\ta\tb\n", "test.tsv")
    write(tmp_path / "RTE" / "test.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n")
    command = [sys.executable, "-X", "importtime", "-m", "subarch", "tasks", "--json", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = {row["task"]: row for row in json.loads(done.stdout)}
    assert list(listed) == list(TASKS)
    assert listed["rte"]["found"]["test"]["labelled"] is False
    assert listed["stsb"]["metrics"] == ["pearson", "spearman"]
    assert not any(f" {heavy}\n" in done.stderr for heavy in ("torch", "transformers", "sklearn", "datasets"))
    plain = subprocess.run(
        [sys.executable, "-m", "subarch", "tasks", "--data", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "1 u" in plain.stdout
