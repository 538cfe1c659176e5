"""A tiny teacher and a tiny corpus that it can read: random, and quick to make. Shared by the tests that need a model.

The teacher is a stock BERT, RoBERTa or ModernBERT folder (width 32, 4 heads, intermediate size 64, 64 usable
positions) with a WordPiece tokenizer and, on wish, the sentence-transformers modules. Its weights are drawn with a
spread that makes every layer, head and bias matter: at the usual spread of 0.02 an untrained encoder hardly does
anything, and a test that compares two of them could not fail.

    >>> teacher = Teacher.load(tiny_teacher(tmp_path / "teacher"))
    >>> corpus = build([tiny_corpus(tmp_path / "corpus.txt")], teacher.tokenizer, tmp_path / "packed")
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

WIDTH, HEADS, INTERMEDIATE, POSITIONS = 32, 4, 64, 64
WINDOW = 8
"""Of a ModernBERT's local attention: 4 tokens to each side, fewer than a sentence has."""

_WORDS = {
    "harbour": "boat captain net salt gull anchor tide rope sailor wave pier mast",
    "kitchen": "bread oven flour spoon soup pepper cook plate knife onion stove cup",
    "garden": "rose spade worm soil hedge seed pond bee leaf fence frog moss",
    "station": "train ticket clock bench porter signal track whistle engine coach tunnel bridge",
    "school": "chalk pupil lesson desk bell book teacher exam pen map corridor answer",
    "verbs": "sees finds takes holds leaves cleans moves needs breaks counts hides brings",
    "adjectives": "old small red heavy quiet broken bright cold early empty round narrow",
    "articles": "the a one",
    "others": "and near under with every some number",
}
TOPICS = ("harbour", "kitchen", "garden", "station", "school")
WORDS = {name: words.split() for name, words in _WORDS.items()}
DIGITS = [*"0123456789", *(f"##{digit}" for digit in "0123456789")]

_SPECIAL = {
    "bert": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "modernbert": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "roberta": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
}
_ST = "sentence_transformers.models"


def tiny_tokenizer(family: str = "bert") -> PreTrainedTokenizerFast:
    """A WordPiece over the words of `tiny_corpus`, single digits and their continuations; lower-cases."""
    special = _SPECIAL[family]
    listed = [word for words in WORDS.values() for word in words]
    words = [*special.values(), *DIGITS, *TOPICS, *listed, ".", ",", ":"]
    inner = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token=special["unk"]))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = {name: inner.token_to_id(token) for name, token in special.items()}
    inner.post_processor = processors.TemplateProcessing(
        single=f"{special['cls']} $A {special['sep']}",
        pair=f"{special['cls']} $A {special['sep']} $B:1 {special['sep']}:1",
        special_tokens=[(special["cls"], ids["cls"]), (special["sep"], ids["sep"])],
    )
    names = {f"{name}_token": token for name, token in special.items()}
    if family == "roberta":
        names |= {"bos_token": special["cls"], "eos_token": special["sep"]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=POSITIONS, **names)
    if family == "modernbert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def tiny_teacher(
    folder: Path,
    *,
    family: str = "bert",
    masked_lm: bool = False,
    layers: int = 3,
    modules: bool = True,
    pooling: str = "mean",
    seed: int = 0,
    width: int = WIDTH,
    heads: int = HEADS,
    **settings: Any,
) -> Path:
    """Write a random teacher into `folder` and return it.

    `settings` are further ones of its stock configuration. `modules` adds Transformer, Pooling ("mean" or "cls") and
    Normalize as sentence-transformers 2 to 4 wrote them.
    """
    tokenizer = tiny_tokenizer(family)
    shape = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": INTERMEDIATE,
        "pad_token_id": tokenizer.pad_token_id,
    } | settings
    model: PreTrainedModel
    # Drawn from a generator of its own: the caller's random state is left as it was
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "bert":
            bert = BertConfig(**shape, max_position_embeddings=POSITIONS, type_vocab_size=2)
            model = BertForMaskedLM(bert) if masked_lm else BertModel(bert)
        elif family == "modernbert":
            ids = {f"{name}_token_id": tokenizer.cls_token_id for name in ("bos", "cls")}
            ids |= {f"{name}_token_id": tokenizer.sep_token_id for name in ("eos", "sep")}
            shape = {"local_attention": WINDOW} | ids | shape
            modern = ModernBertConfig(**shape, max_position_embeddings=POSITIONS)
            model = ModernBertForMaskedLM(modern) if masked_lm else ModernBertModel(modern)
        else:
            ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
            positions = POSITIONS + tokenizer.pad_token_id + 1
            roberta = RobertaConfig(**shape, **ids, max_position_embeddings=positions, type_vocab_size=1)
            model = RobertaForMaskedLM(roberta) if masked_lm else RobertaModel(roberta)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2:
                    parameter.normal_(std=0.5 if "embeddings" in name else 0.25)
                else:
                    parameter.normal_(
                        mean=1.0 if name.lower().replace("_", "").endswith("norm.weight") else 0.0, std=0.1
                    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if modules:
        add_modules(folder, pooling, width)
    return folder


def add_modules(folder: Path, pooling: str = "mean", width: int = WIDTH) -> None:
    """The sentence-transformers layout around a plain folder: Transformer, Pooling, Normalize."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"{_ST}.{kind}"}
        for n, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", listed)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": POSITIONS, "do_lower_case": False})
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )


def write_json(path: Path, value: object) -> None:
    """Write JSON, making the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def tiny_sentences(count: int = 200, seed: int = 0) -> list[str]:
    """Distinct sentences of 8 to 26 tokens, each about one topic: its words can be told from each other."""
    source = random.Random(seed)
    sentences = []
    for n in range(count):
        topic = source.choice(TOPICS)
        clauses = []
        for _ in range(source.randint(1, 3)):
            first, second = source.sample(WORDS[topic], 2)
            adjective, verb, article = (source.choice(WORDS[name]) for name in ("adjectives", "verbs", "articles"))
            clauses.append(f"the {adjective} {first} {verb} {article} {second}")
        # The number makes the sentence distinct, whatever the draw
        sentences.append(f"{topic} number {n}: " + " and ".join(clauses) + ".")
    return sentences


def tiny_corpus(path: Path, documents: int = 200, seed: int = 0) -> Path:
    """Write `tiny_sentences` into a text file, one document a paragraph, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(tiny_sentences(documents, seed)) + "\n", encoding="utf-8")
    return path


TASK_NAMES = {"classes": ("no", "yes", "perhaps"), "labels": ("rude", "long"), "tags": ("O", "B-bell", "I-bell")}


def tiny_task_teacher(folder: Path, kind: str = "classes", *, family: str = "bert", seed: int = 0) -> Path:
    """Write a random model with the head of a task into `folder`: classes, labels, number, tags or choices."""
    tiny_teacher(folder, family=family, modules=False, seed=seed)
    names = dict(enumerate(TASK_NAMES.get(kind, ("LABEL_0",))))
    auto: Any = AutoModelForSequenceClassification
    auto = {"tags": AutoModelForTokenClassification, "choices": AutoModelForMultipleChoice}.get(kind, auto)
    config = AutoConfig.from_pretrained(folder)
    config.id2label, config.label2id = names, {name: number for number, name in names.items()}
    config.problem_type = {"labels": "multi_label_classification", "number": "regression"}.get(kind)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_pretrained(folder, config=config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "encoder." not in name and "embeddings." not in name and "layers." not in name:
                    parameter.normal_(mean=float(parameter.ndim == 1 and "norm" in name), std=0.3)
    model.save_pretrained(folder)
    return folder
