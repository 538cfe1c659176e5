"""Nested records of the downloads -> flat rows with the columns of the hub.

One function per shape, chosen by name in a layout. What these files call a passage with questions with answers, the
hub has flattened already; after this the two are one.

    >>> UNFOLD["wsc"]({"text": "Bob slept. He snored.", "target": {"span1_text": "Bob", "span1_index": 0}, "idx": 3})
    [{'text': 'Bob slept. He snored.', 'target': ..., 'idx': 3, 'span1_text': 'Bob', 'span1_index': 0}]
"""

from __future__ import annotations

from collections.abc import Callable

from subarch.tasks.files import Record


def _copa(item: Record) -> list[Record]:
    row = {"premise": item["p"], "choice1": item["a1"], "choice2": item["a2"], "question": item["asks-for"]}
    answer = item.get("most-plausible-alternative")
    return [row | ({"label": int(answer) - 1} if answer else {})]


def _wsc(item: Record) -> list[Record]:
    return [item | item["target"]]


def _multirc(item: Record) -> list[Record]:
    passage = item["passage"]
    return [
        {
            "paragraph": passage["text"],
            "question": question["question"],
            "answer": answer["text"],
            "idx": {"paragraph": item["idx"], "question": question["idx"], "answer": answer["idx"]},
        }
        | ({"label": answer["label"]} if "label" in answer else {})
        for question in passage["questions"]
        for answer in question["answers"]
    ]


def _record(item: Record) -> list[Record]:
    passage = item["passage"]
    text = passage["text"]
    # ends are inclusive in ReCoRD
    entities = sorted({text[entity["start"] : entity["end"] + 1] for entity in passage["entities"]})
    return [
        {
            "passage": text,
            "query": query["query"],
            "entities": entities,
            "answers": sorted({answer["text"] for answer in query.get("answers", ())}),
            "idx": {"passage": item["idx"], "query": query["idx"]},
        }
        for query in item["qas"]
    ]


def _race(item: Record) -> list[Record]:
    answers = item.get("answers") or [None] * len(item["questions"])
    return [
        {"example_id": item["id"], "article": item["article"], "question": question, "options": options}
        | ({"answer": answer} if answer else {})
        for question, options, answer in zip(item["questions"], item["options"], answers, strict=True)
    ]


def _dream(item: Record) -> list[Record]:
    dialogue, questions, name = item["0"], item["1"], item["2"]
    return [{"dialogue": dialogue, "dialogue_id": name} | question for question in questions]


UNFOLD: dict[str, Callable[[Record], list[Record]]] = {
    "copa": _copa,
    "wsc": _wsc,
    "multirc": _multirc,
    "record": _record,
    "race": _race,
    "dream": _dream,
}
