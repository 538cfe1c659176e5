"""What the golden test runs on: a tiny teacher, a corpus, a space and a task, the same wherever they are made.

All is drawn from Python's own generator, so that no version of another library changes it, and shared with no other
test, so that no change of a helper does.

>>> make(tmp_path)                              # teacher/, corpus.txt, space.yaml, data/{train,dev,test}.csv
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

NOUNS = {
    "sea": ["boat", "captain", "net", "salt", "gull", "anchor", "tide", "rope", "sailor", "wave", "pier", "mast"],
    "kitchen": ["bread", "oven", "flour", "spoon", "soup", "pepper", "cook", "plate", "knife", "onion", "stove", "cup"],
    "garden": ["rose", "spade", "worm", "soil", "hedge", "seed", "pond", "bee", "leaf", "fence", "frog", "moss"],
}
VERBS = ["sees", "finds", "takes", "holds", "leaves", "cleans", "moves", "needs", "breaks", "counts", "hides", "brings"]
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
SPACE = {"depth": [0, 1, 2], "heads": [4], "hidden": [16, 24, 32], "intermediate": [16, 32, 64]}
ROWS = {"train": 24, "dev": 12, "test": 20}
LENGTH = 64


def make(place: Path) -> None:
    """Make everything in a folder: 210 short documents of three topics, and rows of three words to tell these by."""
    draw = random.Random(1)
    documents = [document(topic, draw) for _ in range(70) for topic in NOUNS]
    (place / "corpus.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    (place / "space.yaml").write_text(json.dumps(SPACE), encoding="utf-8")
    (place / "data").mkdir()
    for name, count in ROWS.items():
        rows = [(" ".join(draw.sample(NOUNS[topic][:6], 3)), topic) for _ in range(count) for topic in NOUNS]
        with (place / "data" / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "topic"), *rows[:count]])
    make_teacher(place / "teacher")


def document(topic: str, draw: random.Random) -> str:
    """A sentence of one to four clauses about one topic."""
    clauses = []
    for _ in range(draw.randint(1, 4)):
        one, other = draw.sample(NOUNS[topic], 2)
        clauses.append(f"the {one} {draw.choice(VERBS)} a {other}")
    return " and ".join(clauses) + "."


def make_teacher(folder: Path) -> None:
    """A BERT of 2 layers, width 32, with masked-LM head and sentence modules.

    Its weights are large enough for every layer, head and bias to matter.
    """
    words = [*SPECIAL.values(), *(noun for nouns in NOUNS.values() for noun in nouns), *VERBS, "the", "a", "and", "."]
    inner = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token=SPECIAL["unk"]))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, words.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{name}_token": token for name, token in SPECIAL.items()}
    PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=LENGTH, **names).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = BertForMaskedLM(BertConfig(vocab_size=len(words), max_position_embeddings=LENGTH, pad_token_id=0, **sizes))
    draw = random.Random(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.1 if parameter.ndim == 1 else 0.5 if "embeddings" in name else 0.25
            mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            drawn = [draw.gauss(mean, spread) for _ in range(parameter.numel())]
            parameter.copy_(torch.tensor(drawn).view_as(parameter))
    model.save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
