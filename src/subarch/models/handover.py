"""Hand a student over as stock files: `AutoModel`, `AutoModelForMaskedLM` and `SentenceTransformer` load the folder.

>>> hand_over(student, tokenizer, recipe, Path("runs/mine/selected"))
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers.utils import logging

from subarch.models.sentence import Recipe
from subarch.models.student import Student
from subarch.run.files import replaced

# The older names: every version of sentence-transformers since 2.0 resolves them.
_MODULE = "sentence_transformers.models."


def hand_over(student: Student, tokenizer: Any, recipe: Recipe, folder: Path) -> None:
    """Write model, tokenizer and, for a sentence encoder, the modules that pool, map and normalise as the teacher does.

    The folder appears whole or not at all; one that is there is replaced.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with replaced(folder) as partial:
            student.model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            if student.sentence:
                _write_modules(student, recipe, partial)
    finally:
        if bars:
            logging.enable_progress_bar()


def _write_modules(student: Student, recipe: Recipe, folder: Path) -> None:
    hidden = student.model.config.hidden_size
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": recipe.max_length, "do_lower_case": recipe.lower_case}
    )
    _write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": hidden,
            "pooling_mode_cls_token": recipe.pooling == "cls",
            "pooling_mode_mean_tokens": recipe.pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    if student.projection is not None:
        name = f"{len(modules)}_Dense"
        modules.append((name, "Dense"))
        weight = student.projection.weight.detach().contiguous()
        _write_json(
            folder / name / "config.json",
            {
                "in_features": weight.shape[1],
                "out_features": weight.shape[0],
                "bias": True,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        bias = student.projection.bias.detach().contiguous()
        save_file({"linear.weight": weight, "linear.bias": bias}, folder / name / "model.safetensors")
    if recipe.normalize:
        name = f"{len(modules)}_Normalize"
        modules.append((name, "Normalize"))
        (folder / name).mkdir()
    _write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": _MODULE + kind}
            for index, (path, kind) in enumerate(modules)
        ],
    )
    prompts = {"default": recipe.prefix} if recipe.prefix else {}
    _write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": "default" if prompts else None, "similarity_fn_name": "cosine"},
    )


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
