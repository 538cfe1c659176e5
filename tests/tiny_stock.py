"""Random encoders of every family as sentence-transformers saves them.

>>> StockTeacher.load(stock_folder(tmp_path, "mpnet")).width
32
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import AutoConfig, AutoModel

from tiny import WIDTH, tiny_tokenizer

SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 80,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "mpnet": SHAPE,
    "modernbert": SHAPE | {"global_attn_every_n_layers": 2, "reference_compile": False},
    "electra": SHAPE | {"embedding_size": 16},
    "deberta-v2": SHAPE | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "nomic_bert": SHAPE,
    "albert": SHAPE | {"embedding_size": 16},
    "distilbert": {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 80},
    "xlm-roberta": SHAPE,
    "gemma3_text": SHAPE | {"num_key_value_heads": 2, "head_dim": 8, "use_bidirectional_attention": True},
    "qwen3": SHAPE | {"num_key_value_heads": 2, "head_dim": 8},
}
CAUSAL = ("qwen3",)


def stock_folder(folder: Path, family: str, tokenizer: Any = None) -> Path:
    """A random encoder of the family as a SentenceTransformer: mean pooling, or the last token and padding on the left.

    Those of decoders get prompts, a Dense of another width and normalisation besides.
    """
    tokenizer = tokenizer or tiny_tokenizer("roberta" if family == "xlm-roberta" else "bert")
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    if family == "modernbert":
        ids |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(family, **FAMILIES[family], **ids))
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.2
        if family in CAUSAL:
            tokenizer.padding_side = "left"
        model.save_pretrained(folder / "plain")
        tokenizer.save_pretrained(folder / "plain")
        transformer = Transformer(str(folder / "plain"), max_seq_length=40)
        if family not in (*CAUSAL, "gemma3_text"):
            modules = [transformer, Pooling(WIDTH)]
            prompts: dict[str, Any] = {}
        else:
            pooling = Pooling(WIDTH, pooling_mode="lasttoken" if family in CAUSAL else "mean")
            modules = [transformer, pooling, Dense(WIDTH, 24, activation_function=torch.nn.Identity()), Normalize()]
            prompts = {"prompts": {"query": "find the ", "document": ""}, "default_prompt_name": "query"}
        SentenceTransformer(modules=modules, similarity_fn_name="dot", device="cpu", **prompts).save(str(folder))
    shutil.rmtree(folder / "plain")
    return folder
