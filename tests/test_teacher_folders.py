"""Whatever a teacher folder says that sentence-transformers applies, we apply, or we refuse the folder by name.

The settings below are grouped by where they stand. Each is tried alone, then at random together with others: a folder
of settings that are all applied must give the embeddings of `SentenceTransformer(folder)`, a folder with one that is
not must be refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertJapaneseTokenizer

from subarch.errors import InvalidTeacher
from subarch.exporting.graph import load_exportable, load_graph
from subarch.models.sentence import TRANSFORMER_FILES
from subarch.models.teacher import Teacher, prompt_ids
from tiny import WIDTH, tiny_sentences, tiny_teacher, write_json

CASES = Path(__file__).parents[2] / "shared" / "cases" / "teachers"
TEXTS = [*tiny_sentences(5, seed=1), "boat", "a [SEP] boat</s>", "THE OLD BOAT", "the bell and a rose. " * 30]

Change = Callable[[Path], object]

BERT_CONFIG, MODEL, POOLING = "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"
TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"


def put(name: str, **changes: Any) -> Change:
    """Sets keys of a JSON file; `...` takes a key away."""

    def apply(folder: Path) -> None:
        path = folder / name
        value = (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}) | changes
        write_json(path, {key: item for key, item in value.items() if item is not ...})

    return apply


def transformer(**changes: Any) -> Change:
    """Sets keys of the Transformer's settings, whatever its file is called."""

    def apply(folder: Path) -> None:
        name = next(name for name in (*TRANSFORMER_FILES, BERT_CONFIG) if (folder / name).is_file())
        put(name, **changes)(folder)

    return apply


def file_of_transformer(name: str) -> Change:
    return lambda folder: (folder / BERT_CONFIG).rename(folder / name)


def pooling(**config: Any) -> Change:
    return lambda folder: write_json(folder / POOLING, {"embedding_dimension": WIDTH} | config)


def dense(
    has_bias: bool = True,
    shape: tuple[int, int] = (24, WIDTH),
    extra: str | None = None,
    path: str = "9_Dense",
    **config: Any,
) -> Change:
    """Puts a Dense module behind Pooling. `has_bias` and `shape` (out, in) are those of its weights."""

    def apply(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        modules.insert(2, {"idx": 9, "name": path, "path": path, "type": "sentence_transformers.models.Dense"})
        write_json(folder / "modules.json", modules)
        plain = {"in_features": WIDTH, "out_features": 24, "bias": True, "activation_function": TANH} | config
        write_json(folder / path / "config.json", {key: item for key, item in plain.items() if item is not ...})
        generator = torch.Generator().manual_seed(0)
        state = {"linear.weight": torch.randn(shape, generator=generator)}
        state |= {"linear.bias": torch.randn(shape[0], generator=generator)} if has_bias else {}
        save_file(state | ({extra: torch.ones(2)} if extra else {}), folder / path / "model.safetensors")

    return apply


def entry(number: int, **changes: Any) -> Change:
    """Sets keys of an entry of modules.json."""

    def apply(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        modules[number] |= changes
        write_json(folder / "modules.json", modules)

    return apply


def tokenizer_json(**changes: Any) -> Change:
    return put("tokenizer.json", **changes)


def post_processor(opening: str, closing: str, type_id: int = 0) -> Change:
    """A template of these special tokens, named by their role, around a text."""

    def apply(folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokens = {role: getattr(tokenizer, f"{role}_token") for role in (opening, closing) if role}
        parts: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": type_id}}]
        if opening:
            parts.insert(0, {"SpecialToken": {"id": tokens[opening], "type_id": 0}})
        if closing:
            parts.append({"SpecialToken": {"id": tokens[closing], "type_id": 0}})
        ids = {
            token: {"id": token, "ids": [tokenizer.convert_tokens_to_ids(token)], "tokens": [token]}
            for token in tokens.values()
        }
        pair = [*parts, {"Sequence": {"id": "B", "type_id": 0}}]
        template = {"type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": ids}
        tokenizer_json(post_processor=template)(folder)

    return apply


def weights(change: Callable[[dict[str, torch.Tensor]], object], name: str = "model.safetensors") -> Change:
    def apply(folder: Path) -> None:
        state = load_file(folder / name)
        change(state)
        save_file(state, folder / name, metadata={"format": "pt"})

    return apply


def as_type(dtype: torch.dtype) -> Change:
    return weights(lambda state: state.update({key: value.to(dtype) for key, value in state.items()}))


def extra_weight(*names: str) -> Change:
    return weights(lambda state: state.update({name: torch.ones(WIDTH, WIDTH) for name in names}))


def buffers(folder: Path) -> None:
    """As transformers 3 and 4 saved them."""
    rows = json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    ids = {
        "embeddings.position_ids": torch.arange(rows)[None],
        "embeddings.token_type_ids": torch.zeros(1, rows).long(),
    }
    weights(lambda state: state.update(ids))(folder)


def shards(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: state[key] for key in keys}, folder / file, metadata={"format": "pt"})
    where = {key: file for file, keys in parts.items() for key in keys}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})


def without_modules(*changes: Change) -> Change:
    """A plain folder of transformers."""

    def apply(folder: Path) -> None:
        (folder / "modules.json").unlink()
        for change in changes:
            change(folder)

    return apply


def moved(place: str) -> Change:
    """The Transformer, with all its files, in a folder of its own."""

    def apply(folder: Path) -> None:
        (folder / place).mkdir()
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in ("modules.json", MODEL):
                path.rename(folder / place / path.name)
        entry(0, path=place)(folder)

    return apply


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


V6 = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
PROMPTS = {"query": "the old: ", "document": ""}
TRUNCATION = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 50},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}

APPLIED: dict[str, dict[str, Change]] = {
    "name of the Transformer's file": {
        **{name: file_of_transformer(name) for name in TRANSFORMER_FILES[1:]},
        "the first that says anything": lambda f: [file_of_transformer(TRANSFORMER_FILES[3])(f), put(BERT_CONFIG)(f)],
    },
    "length": {
        "eight": transformer(max_seq_length=8),
        "the tokenizer's": both(transformer(max_seq_length=...), put("tokenizer_config.json", model_max_length=9)),
        "the folder's before the tokenizer's": put("tokenizer_config.json", model_max_length=9),
        "null": both(transformer(max_seq_length=None), put("tokenizer_config.json", model_max_length=9)),
        "tokenizer_args": transformer(max_seq_length=..., tokenizer_args={"model_max_length": 7}),
        "tokenizer_args before max_seq_length": transformer(max_seq_length=9, tokenizer_args={"model_max_length": 7}),
        "processor_kwargs": transformer(max_seq_length=9, processor_kwargs={"model_max_length": 6}),
        "both": transformer(processor_kwargs={"model_max_length": 6}, tokenizer_args={"model_max_length": 7}),
    },
    "Transformer": {
        "as version 6 writes it": transformer(**V6),
        "lower case": transformer(do_lower_case=True),
        "nothing": transformer(tokenizer_args={}, model_args={}, config_args={}),
        "attention": transformer(model_args={"attn_implementation": "eager", "torch_dtype": "float32"}),
        "unpadded": transformer(unpad_inputs=True, query_length=None),
    },
    "modules.json": {
        "the names of version 6": both(
            entry(0, type="sentence_transformers.base.modules.transformer.Transformer"),
            entry(1, type="sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
            entry(-1, type="sentence_transformers.base.modules.normalize.Normalize"),
        ),
    },
    "Pooling": {
        "cls": pooling(pooling_mode="cls"),
        "a list": pooling(pooling_mode=["cls"], include_prompt=True),
        "before the older keys": pooling(pooling_mode="cls", pooling_mode_mean_tokens=True),
        "none of the older keys": pooling(pooling_mode_mean_tokens=False, pooling_mode_max_tokens=False),
        "the default": pooling(),
    },
    "Dense": {
        "tanh": dense(),
        "the default": dense(activation_function=...),
        "identity": dense(activation_function=IDENTITY, module_output_name="sentence_embedding", use_residual=False),
        "no bias": dense(has_bias=False, bias=False),
        "as wide as its input": dense(shape=(WIDTH, WIDTH), out_features=WIDTH),
        "two": both(dense(in_features=24, out_features=16, shape=(16, 24)), dense(path="8_Dense")),
    },
    "Normalize": {
        "none": lambda f: write_json(f / "modules.json", json.loads((f / "modules.json").read_text())[:-1]),
        "no folder": lambda f: shutil.rmtree(f / "2_Normalize", ignore_errors=True),
        "as version 6 writes it": put(
            "2_Normalize/config.json", module_input_name="sentence_embedding", module_output_name="sentence_embedding"
        ),
    },
    "model": {
        "a prompt": put(MODEL, prompts=PROMPTS, default_prompt_name="query"),
        "an empty prompt": put(MODEL, prompts=PROMPTS, default_prompt_name="document"),
        "prompts": put(MODEL, prompts=PROMPTS, default_prompt_name=None, __version__={"pytorch": "2"}),
        "truncate_dim": put(MODEL, truncate_dim=16),
        "truncate_dim of more than there is": put(MODEL, truncate_dim=1000),
        "similarity": put(MODEL, similarity_fn_name="dot", model_type="SentenceTransformer", truncate_dim=None),
    },
    "tokenizer": {
        "padding on the left": put("tokenizer_config.json", padding_side="left"),
        "truncation in tokenizer.json": tokenizer_json(truncation=TRUNCATION),
        "padding in tokenizer.json": tokenizer_json(padding=PADDING),
    },
    "config.json": {
        "activation": put("config.json", hidden_act="relu"),
        "all hidden states": put("config.json", output_hidden_states=True, use_cache=False),
        "absolute positions": put("config.json", position_embedding_type="absolute", is_decoder=False, pruned_heads={}),
        "epsilon": put("config.json", layer_norm_eps=0.1),
    },
    "weights": {
        "pooler and heads": extra_weight("pooler.dense.weight", "classifier.weight", "qa_outputs.weight"),
        "buffers": buffers,
        "shards": shards,
    },
    "place": {"0_Transformer": moved("0_Transformer"), "encoder": moved("encoder"), "two deep": moved("a_b")},
}

REFUSED: dict[str, tuple[Change, str]] = {
    # what is done to the folder, and what the message must name
    "no length": (transformer(max_seq_length=0), "max_seq_length = 0 is not supported"),
    "length in words": (transformer(max_seq_length="8"), "max_seq_length = '8'"),
    "short tokenizer": (transformer(tokenizer_args={"model_max_length": 2}), "tokenizer_args.model_max_length = 2"),
    "shorter tokenizer": (
        both(transformer(max_seq_length=...), put("tokenizer_config.json", model_max_length=2)),
        "reads 2 tokens",
    ),
    "tokenizer_args": (transformer(tokenizer_args={"do_lower_case": False}), "tokenizer_args.do_lower_case"),
    "tokenizer_args left": (transformer(tokenizer_args={"truncation_side": "left"}), "tokenizer_args.truncation_side"),
    "processor_kwargs": (transformer(processor_kwargs={"use_fast": False}), "processor_kwargs.use_fast"),
    "config_args": (transformer(config_args={"hidden_act": "relu"}), "config_args.hidden_act"),
    "config_kwargs": (transformer(config_kwargs={"num_hidden_layers": 1}), "config_kwargs.num_hidden_layers"),
    "model_args": (transformer(model_args={"torch_dtype": "float16"}), "model_args.torch_dtype"),
    "model_kwargs": (transformer(model_kwargs={"subfolder": "other"}), "model_kwargs.subfolder"),
    "task": (transformer(transformer_task="fill-mask"), "transformer_task = 'fill-mask'"),
    "modality": (
        transformer(modality_config={"text": {"method": "forward", "method_output_name": "pooler_output"}}),
        "modality_config.text.method_output_name",
    ),
    "message": (transformer(modality_config={"message": {}}, module_output_name="token_embeddings"), "modality_config"),
    "output": (transformer(module_output_name="sentence_embedding"), "module_output_name"),
    "processing": (transformer(processing_kwargs={"text": {"max_length": 5}}), "processing_kwargs.text"),
    "length of queries": (transformer(query_length=8), "query_length"),
    "length of documents": (transformer(document_length=8), "document_length"),
    "expansion": (transformer(query_expansion={"strategy": "fixed", "length": 8}), "query_expansion"),
    "tokenizer from elsewhere": (transformer(tokenizer_name_or_path="bert-base-cased"), "tokenizer_name_or_path"),
    "unknown setting of Transformer": (transformer(pooling_layer=2), "pooling_layer"),
    "unknown setting of Pooling": (pooling(temperature=2), "temperature"),
    "max": (pooling(pooling_mode="max"), "max"),
    "weighted mean": (pooling(pooling_mode_weightedmean_tokens=True), "weightedmean"),
    "prompt left out": (pooling(pooling_mode="mean", include_prompt=False), "include_prompt"),
    "another output of Dense": (dense(module_output_name="token_embeddings"), "module_output_name"),
    "new output of Dense": (dense(module_output_name="projected"), "module_output_name"),
    "another input of Dense": (dense(module_input_name="token_embeddings"), "module_input_name"),
    "residual": (dense(use_residual=True), "use_residual"),
    "activation": (dense(activation_function="torch.nn.modules.activation.ReLU"), "activation_function"),
    "unknown setting of Dense": (dense(dropout=0.1), "dropout"),
    "weights without the bias": (dense(has_bias=False), "ask for {'linear.weight': (24, 32), 'linear.bias': (24,)}"),
    "weights with a bias": (dense(bias=False), "ask for {'linear.weight': (24, 32)}"),
    "input of another width": (dense(in_features=16), "9_Dense"),
    "weights of another shape": (dense(shape=(16, WIDTH)), "9_Dense"),
    "further weights of Dense": (dense(extra="residual.weight"), "residual.weight"),
    "another input of Normalize": (
        put("2_Normalize/config.json", module_input_name="token_embeddings"),
        "module_input_name",
    ),
    "unknown setting of Normalize": (put("2_Normalize/config.json", p=1), "p = 1"),
    "truncate_dim": (put(MODEL, truncate_dim=0), "truncate_dim = 0"),
    "model type": (put(MODEL, model_type="CrossEncoder"), "is a CrossEncoder made of Transformer, Pooling, Normalize"),
    "requirements": (put(MODEL, requirements={"sentence_transformers": ">=99"}), "requirements"),
    "unknown setting of the model": (put(MODEL, query_prefix="q"), "query_prefix"),
    "keyword arguments": (entry(1, kwargs=["task"]), "kwargs"),
    "two of a name": (entry(2, name="1"), "two modules have the same name"),
    "unknown setting of a module": (entry(1, revision="main"), "revision"),
    "no post-processor": (tokenizer_json(post_processor=None), "does not put a text between"),
    "only an opening token": (post_processor("cls", ""), "does not put a text between"),
    "only a closing token": (post_processor("", "sep"), "does not put a text between"),
    "other tokens": (post_processor("mask", "sep"), "does not put a text between"),
    "token types": (
        both(
            post_processor("cls", "sep", 1),
            put("tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"]),
        ),
        "token types",
    ),
    "no mask": (put("tokenizer_config.json", model_input_names=["input_ids"]), "model_input_names"),
    "cut on the left by tokenizer.json": (
        tokenizer_json(truncation=TRUNCATION | {"direction": "Left"}),
        "truncation_side",
    ),
    "cut on the left": (put("tokenizer_config.json", truncation_side="left"), "truncation_side"),
    "processor of the tokenizer": (put("tokenizer_config.json", processor_class="CLIPProcessor"), "processor_class"),
    "relative positions": (put("config.json", position_embedding_type="relative_key"), "position_embedding_type"),
    "decoder": (put("config.json", is_decoder=True), "is_decoder"),
    "causal": (put("config.json", is_causal=True), "is_causal"),
    "cross-attention": (put("config.json", add_cross_attention=True, is_decoder=True), "is_decoder"),
    "tuples": (put("config.json", return_dict=False), "return_dict"),
    "pruned heads": (put("config.json", pruned_heads={"0": [1]}), "pruned_heads"),
    "quantised": (put("config.json", quantization_config={"quant_method": "x"}), "quantization_config"),
    "other weights": (put("config.json", transformers_weights="other.safetensors"), "transformers_weights"),
    "processor": (put("config.json", processor_class="CLIPProcessor"), "processor_class"),
    "a fourth layer": (extra_weight("encoder.layer.3.output.dense.weight"), "encoder.layer.3.output.dense.weight"),
    "prefixed": (extra_weight("bert.adapters.0.weight", "roberta.adapters.0.weight"), "adapters.0.weight"),
    "an adapter within": (extra_weight("encoder.layer.0.adapter.up.weight"), "encoder.layer.0.adapter.up.weight"),
    "relative embeddings": (
        extra_weight("encoder.layer.0.attention.self.distance_embedding.weight"),
        "distance_embedding",
    ),
    "adapter": (put("adapter_config.json", peft_type="LORA"), "adapter_config.json"),
    "preprocessor": (put("preprocessor_config.json", feature_size=1), "preprocessor_config.json"),
    "chat template": (
        without_modules(lambda f: (f / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")),
        "chat template",
    ),
    "language model": (
        without_modules(put("config.json", architectures=["RobertaForCausalLM"])),
        "reads to the left only",
    ),
}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("teachers")
    return {family: tiny_teacher(root / family, family=family) for family in ("bert", "roberta")}


def theirs(folder: Path) -> Any:
    return SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=1)  # padding on the left counts


def ours(folder: Path) -> Any:
    teacher = Teacher.load(folder)
    return teacher.embed(teacher.tokenizer(TEXTS, add_special_tokens=False, verbose=False)["input_ids"]).numpy()


def assert_equal(folder: Path) -> None:
    expected = theirs(folder)
    np.testing.assert_allclose(ours(folder), expected, atol=1e-5)
    assert np.ptp(expected @ expected.T) > 1e-3  # the texts differ


def assert_refused(folder: Path, message: str) -> None:
    with pytest.raises(InvalidTeacher) as caught:
        Teacher.load(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in APPLIED.items() for name in names])
def test_a_setting_is_applied(teachers: dict[str, Path], tmp_path: Path, group: str, name: str) -> None:
    folder = Path(shutil.copytree(teachers["bert"], tmp_path / "teacher"))
    APPLIED[group][name](folder)
    assert_equal(folder)


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_is_refused_by_name(teachers: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(teachers["bert"], tmp_path / "teacher"))
    change, message = REFUSED[name]
    change(folder)
    assert_refused(folder, message)


@st.composite
def chosen(draw: st.DrawFn) -> dict[str, str]:
    """At most one setting of each group, in the order of the groups."""
    groups = draw(st.sets(st.sampled_from(list(APPLIED)), min_size=2, max_size=6))
    return {group: draw(st.sampled_from(list(APPLIED[group]))) for group in APPLIED if group in groups}


WITH_MODULES = [name for name in REFUSED if name not in ("chat template", "language model")]


@given(family=st.sampled_from(["bert", "roberta"]), names=chosen(), refused=st.none() | st.sampled_from(WITH_MODULES))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_settings_together(
    teachers: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    family: str,
    names: dict[str, str],
    refused: str | None,
) -> None:
    folder = Path(shutil.copytree(teachers[family], tmp_path_factory.mktemp("together") / "teacher"))
    if refused is not None:
        REFUSED[refused][0](folder)
    for group, name in names.items():
        APPLIED[group][name](folder)
    if refused is None:
        assert_equal(folder)
        return
    try:
        found = ours(folder)
    except InvalidTeacher:
        return
    np.testing.assert_allclose(found, theirs(folder), atol=1e-5)  # a later setting replaced the one that is refused


def test_a_plain_folder_has_no_settings_of_sentence_transformers(teachers: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teachers["bert"], tmp_path / "teacher"))
    ignored = put(MODEL, truncate_dim=4, prompts=PROMPTS, default_prompt_name="query")
    without_modules(transformer(max_seq_length=5), ignored)(folder)
    assert_equal(folder)


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json and merges.txt"])
def test_a_byte_level_tokenizer(tmp_path: Path, file: str) -> None:
    folder = tiny_teacher(tmp_path / "teacher", family="roberta")
    (folder / "tokenizer.json").unlink()
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator(tiny_sentences(50), trainer)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    if file == "tokenizer.json":
        inner.save(str(folder / file))
    else:
        inner.model.save(str(folder))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", "model_max_length": 64})
    rows = torch.randn(inner.get_vocab_size(), WIDTH, generator=torch.Generator().manual_seed(0))
    weights(lambda state: state.update({"embeddings.word_embeddings.weight": rows}))(folder)
    put("config.json", vocab_size=len(rows))(folder)
    put(MODEL, prompts={"query": "the:"}, default_prompt_name="query")(folder)
    assert_equal(folder)
    put(MODEL, prompts={"query": "the: "}, default_prompt_name="query")(folder)  # a space belongs to the next word
    assert_refused(folder, "changes how its tokenizer reads the text behind it")


def test_a_prompt_before_words_that_bring_their_own_space(tmp_path: Path) -> None:
    """As e5 has it: SentencePiece reads the space at the end of "query: " as the beginning of the next word."""
    folder = tiny_teacher(tmp_path / "teacher", family="roberta")
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    inner.train_from_iterator([f"query: {text}" for text in tiny_sentences(50)], trainer)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    inner.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    names |= {"cls_token": "<s>", "sep_token": "</s>"}
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **names},
    )
    rows = torch.randn(inner.get_vocab_size(), WIDTH, generator=torch.Generator().manual_seed(0))
    weights(lambda state: state.update({"embeddings.word_embeddings.weight": rows}))(folder)
    put("config.json", vocab_size=len(rows))(folder)
    put(MODEL, prompts={"query": "query: "}, default_prompt_name="query")(folder)
    tokenizer = Teacher.load(folder).tokenizer
    assert len(prompt_ids(tokenizer, "query: ", "")) == 1 + len(prompt_ids(tokenizer, "query: "))
    assert_equal(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_16_bits_are_computed_with_in_32(
    teachers: dict[str, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    """sentence-transformers computes in 16 bits too, which is the larger part of the difference."""
    folder = Path(shutil.copytree(teachers["bert"], tmp_path / "teacher"))
    as_type(dtype)(folder)
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    np.testing.assert_allclose(ours(folder), model.encode(TEXTS), atol=1e-5)


def test_a_tokenizer_written_in_python_is_refused(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path / "teacher")
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8")
    BertJapaneseTokenizer(str(folder / "vocab.txt"), word_tokenizer_type="basic").save_pretrained(folder)
    assert_refused(folder, "BertJapaneseTokenizer, is a slow one")


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.glob("*")) or ["absent"])
def test_shared_cases(name: str) -> None:
    if name == "absent":
        pytest.skip(f"{CASES} is not there")
    try:
        found = ours(CASES / name)
    except InvalidTeacher:
        assert "length" not in name
    else:
        np.testing.assert_allclose(found, theirs(CASES / name), atol=1e-5)


def test_an_export_computes_the_same(teachers: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teachers["bert"], tmp_path / "teacher"))
    both(dense(), put(MODEL, truncate_dim=16))(folder)
    teacher = Teacher.load(folder)
    batch = teacher.batch(teacher.tokenizer(TEXTS, add_special_tokens=False, verbose=False)["input_ids"])
    with torch.inference_mode():
        for graph in (load_exportable(folder).graph, load_graph(folder, "sentence")):
            found = graph(batch.ids, batch.mask, torch.zeros_like(batch.ids))[1]
            np.testing.assert_allclose(found.numpy(), theirs(folder), atol=1e-5)
    moved("0_Transformer")(folder)
    with pytest.raises(InvalidTeacher, match="a folder of its own, 0_Transformer"):
        load_exportable(folder)
