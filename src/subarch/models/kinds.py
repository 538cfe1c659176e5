"""What a folder is, found out from its small files before anything of it is loaded.

Some folders are no sentence encoders (rerankers, classifiers, adapters), some would run code when they are loaded
(remote code, pickled weights). Each is refused here by what it is, with what to do.

    >>> check_folder(Path("ms-marco-MiniLM-L6-v2"))
    Traceback (most recent call last):
    subarch.errors.InvalidTeacher: ms-marco-MiniLM-L6-v2: is a CrossEncoder, which scores pairs of texts ...
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from subarch.errors import InvalidTeacher
from subarch.models.sentence import TRANSFORMER_FILES, read_json

_OTHER_MODELS = {
    "SparseEncoder": "gives sparse vectors as long as its vocabulary",
    "MultiVectorEncoder": "gives a vector for each token",
    "ColBERT": "gives a vector for each token",
}
"""Models of sentence-transformers without one dense vector for a text, by `model_type`, and what each does."""

_WITH_WEIGHTS = ("Transformer", "StaticEmbedding", "Dense", "LayerNorm", "WeightedLayerPooling", "CNN", "LSTM")
_MODULES = (*_WITH_WEIGHTS, "Pooling", "Normalize", "Dropout")
"""Modules that sentence-transformers reads from JSON and safetensors alone."""

_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

_SETTINGS = (
    *("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"),
    *TRANSFORMER_FILES,
)
"""Files whose keys transformers or sentence-transformers hands on to a loader."""

_ELSEWHERE = {
    "transformers_weights": "names another file of weights; save the model again with save_pretrained()",
    "tokenizer_name_or_path": "takes the tokenizer from elsewhere; save the tokenizer in the folder and remove the key",
}

TaskHead = Literal["sequence", "tokens", "choice"]
"""The head of a stock class: of a whole input, of each of its tokens, or of each of its choices."""

TASK_HEADS: dict[str, TaskHead] = {
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "tokens",
    "ForMultipleChoice": "choice",
}
_TASKS = {
    "ForSequenceClassification": "a classifier or reranker",
    "ForTokenClassification": "a tagger",
    "ForQuestionAnswering": "a question answerer",
    "ForMultipleChoice": "a multiple-choice model",
    "ForNextSentencePrediction": "a classifier of pairs",
    "ForCausalLM": "a language model that reads to the left only",
    "ForConditionalGeneration": "a model that generates text",
}


def check_folder(folder: Path) -> None:
    """Refuse what nothing here can load safely, or what has no sentence embeddings.

    Raises:
        InvalidTeacher: another model of sentence-transformers, an adapter, remote code, pickled or ONNX weights only.
    """
    about = folder / "config_sentence_transformers.json"
    kind = str(read_json(about).get("model_type")) if about.is_file() else ""
    if kind in _OTHER_MODELS:
        raise InvalidTeacher(
            f"{folder}: is a {kind}, which {_OTHER_MODELS[kind]} and has no embeddings; name the folder of a "
            "SentenceTransformer or of a plain encoder"
        )
    if not (folder / "modules.json").is_file():
        _check_code(folder)
        config = read_json(folder / "config.json")
        if config.get("model_type") == "model2vec":
            raise InvalidTeacher(
                f"{folder}: is a static table of token vectors (model2vec) without modules.json, which "
                "sentence-transformers cannot load; save it as "
                "SentenceTransformer(modules=[StaticEmbedding.from_model2vec(folder)])"
            )
        _check_weights(folder)
        _check_tokenizer(folder)
        return
    for path, kind in _modules(folder):
        _check_code(path)
        if kind in _WITH_WEIGHTS:
            _check_weights(path)
        if kind == "Transformer":
            _check_tokenizer(path)
        if kind == "Dense":
            _check_activation(path / "config.json")


def check_embeds(folder: Path) -> None:
    """Refuse a plain folder that was trained for a task: the mean of its token vectors is not what it is for.

    Raises:
        InvalidTeacher: its config.json names an architecture with the head of a task.
    """
    if is_cross_encoder(folder):
        raise InvalidTeacher(f"{folder}: is a CrossEncoder, which scores pairs of texts, not single ones; {_REMEDY}")
    if (folder / "modules.json").is_file():
        return
    for name in architectures(read_json(folder / "config.json"))[:1]:
        for ending, what in _TASKS.items():
            if name.endswith(ending):
                remedy = _REMEDY if ending in TASK_HEADS else "name the folder of a sentence encoder"
                raise InvalidTeacher(f"{folder}: is {what} ({name}), not a sentence encoder; {remedy}")


_REMEDY = (
    "its outputs are learnt with error outputs, from inputs as its task has them; for embeddings name the encoder that "
    "it was made from, or a sentence encoder"
)


def is_cross_encoder(folder: Path) -> bool:
    """Whether sentence-transformers wrote the folder as a model that scores pairs of texts."""
    about = folder / "config_sentence_transformers.json"
    return about.is_file() and read_json(about).get("model_type") == "CrossEncoder"


def task_head_of(folder: Path) -> TaskHead | None:
    """The head that a folder's model has for a task; None: it has none that students can have."""
    if (folder / "modules.json").is_file() and not is_cross_encoder(folder):
        return None
    if not (folder / "config.json").is_file():
        return None
    for name in architectures(read_json(folder / "config.json"))[:1]:
        for ending, head in TASK_HEADS.items():
            if name.endswith(ending):
                return head
    return None


def is_reranker(folder: Path) -> bool:
    """Whether a folder is for scoring pairs of texts, or classifying them, rather than for embeddings."""
    about = folder / "config_sentence_transformers.json"
    if (folder / "modules.json").is_file():
        return about.is_file() and read_json(about).get("model_type") == "CrossEncoder"
    config = folder / "config.json"
    return config.is_file() and any(
        name.endswith("ForSequenceClassification") for name in architectures(read_json(config))[:1]
    )


def check_reranker(folder: Path) -> None:
    """Refuse a reranker that nothing here can load safely; the caller knows that it is one.

    Raises:
        InvalidTeacher: remote code, pickled weights, modules beside a classifier, an activation that is not torch's.
    """
    if (folder / "modules.json").is_file() and (kinds := [kind for _, kind in _modules(folder)]) != ["Transformer"]:
        raise InvalidTeacher(
            f"{folder}: is a CrossEncoder made of {', '.join(kinds)}; supported is one of a "
            "ForSequenceClassification model alone"
        )
    _check_code(folder)
    _check_weights(folder)
    _check_tokenizer(folder)
    activation_of(folder)


def activation_of(folder: Path) -> str | None:
    """The class that a CrossEncoder folder of any version puts on its output; None: none is named.

    Raises:
        InvalidTeacher: it is not a class of torch.nn.
    """
    about, config = folder / "config_sentence_transformers.json", read_json(folder / "config.json")
    named = [
        read_json(about).get("activation_fn") if about.is_file() else None,
        (config.get("sentence_transformers") or {}).get("activation_fn"),
        config.get("sbert_ce_default_activation_function"),
    ]
    for name in named:
        if name is not None and not str(name).startswith("torch.nn."):
            raise InvalidTeacher(f"{folder}: activation_fn = {name!r} is not supported: not a class of torch.nn")
    return next((str(name) for name in named if name is not None), None)


def architectures(config: dict[str, Any]) -> list[str]:
    """The names of classes under `architectures` in a config.json."""
    found = config.get("architectures")
    return [str(name) for name in found] if isinstance(found, list) else []


def _modules(folder: Path) -> Iterator[tuple[Path, str]]:
    """(folder, kind) of the modules, each a class of sentence-transformers whose files are in the folder."""
    path = folder / "modules.json"
    for entry in read_json(path, list):
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise InvalidTeacher(f"{path}: an entry without a type; the teacher folder is damaged, copy it again")
        library, _, kind = entry["type"].rpartition(".")
        if library.split(".")[0] != "sentence_transformers" or kind not in _MODULES:
            raise InvalidTeacher(
                f"{path}: module {entry['type']} is not supported, it may be code that comes with the model; use a "
                f"teacher made of {', '.join(_MODULES)} of sentence_transformers"
            )
        place = Path(str(entry.get("path", "")))
        if place.is_absolute() or ".." in place.parts:
            raise InvalidTeacher(f"{path}: module {kind} lies outside the folder, in {place}")
        yield folder / place, kind


def _check_code(folder: Path) -> None:
    """No JSON file of a module asks for code, or for files that lie elsewhere."""
    if (adapter := folder / "adapter_config.json").exists():
        raise InvalidTeacher(
            f"{adapter}: is an adapter for another model; merge it into that model (merge_and_unload() of peft) and "
            "save the result"
        )
    for path in (folder / name for name in _SETTINGS if (folder / name).is_file()):
        config = read_json(path)
        inner = [pair for value in config.values() if isinstance(value, dict) for pair in value.items()]
        for key, value in (*config.items(), *inner):
            if key in ("auto_map", "trust_remote_code") and value:
                raise InvalidTeacher(
                    f"{folder}: {key} in its {path.name} asks to run code that comes with the model, which is refused; "
                    "use a model that transformers has a class for"
                )
            if key in _ELSEWHERE and value is not None:
                raise InvalidTeacher(f"{path}: {key} = {value!r} {_ELSEWHERE[key]}")
            if key in ("attn_implementation", "_attn_implementation") and "/" in str(value):
                raise InvalidTeacher(f"{path}: {key} = {value!r} would run a kernel from the hub; remove the key")


def _check_weights(folder: Path) -> None:
    if any(folder.glob("model*.safetensors")):
        return
    pickled = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickled:
        problem = f"; pickled weights ({', '.join(pickled)}) can run code and are refused"
    elif any(folder.rglob("*.onnx")) or any(folder.rglob("openvino_model.xml")):
        raise InvalidTeacher(
            f"{folder}: holds an export only (ONNX or OpenVINO), which students cannot learn from or inherit; take the "
            "folder that it was made from, with model.safetensors"
        )
    else:
        problem = ""
    raise InvalidTeacher(
        f"{folder}: no model.safetensors{problem}; save the model again with save_pretrained(), which writes "
        "safetensors"
    )


def _check_tokenizer(folder: Path) -> None:
    if not any(path.is_file() for name in _TOKENIZERS for path in folder.glob(name)):  # transformers would make one up
        raise InvalidTeacher(f"{folder}: no tokenizer; one of {', '.join(_TOKENIZERS)} is needed")


def _check_activation(path: Path) -> None:
    """sentence-transformers would silently take tanh for a function that it does not know."""
    name = read_json(path).get("activation_function", "torch.nn.Identity")
    if not str(name).startswith("torch.nn."):
        raise InvalidTeacher(f"{path}: activation_function = {name!r} is not supported: not a class of torch.nn")
