"""What is done to a model before it is quantised: how far it may move what is computed, and what it is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from subarch.exporting import int8
from subarch.exporting.graph import Exportable, load_exportable, store_in_16_bits, write_onnx
from subarch.exporting.int8 import Int8Embedding, overflows, quantize_onnx, smoothed, with_int8_embeddings
from subarch.exporting.parity import Text, compare
from subarch.exporting.runtimes import open_file
from tiny_export import tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exportable]:
    folder = tmp_path_factory.mktemp("models")
    families = {"sentence": "bert", "masked-lm": "roberta"}
    return {head: load_exportable(tiny_model(folder / head, head, family)) for head, family in families.items()}


def test_an_int8_table_is_off_by_half_a_step_of_its_row() -> None:
    table = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, 50)[:, None]
    table[7] = 0
    module = Int8Embedding(table)
    ids = torch.arange(50).reshape(5, 10)
    found = module(ids).reshape(50, 16)
    step = table.abs().amax(1, keepdim=True) / 127
    assert ((found - table).abs() <= 0.5001 * step).all()
    assert (found[7] == 0).all()
    assert module.rows.dtype == torch.int8
    assert module.rows.abs().amax(1).tolist() == [127] * 7 + [0] + [127] * 42


def test_int8_embeddings_leave_the_model_alone_and_a_tied_head_its_weights(models: dict[str, Exportable]) -> None:
    graph = models["masked-lm"].graph
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    changed = with_int8_embeddings(graph)
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())
    assert torch.equal(changed.model.lm_head.decoder.weight, graph.model.lm_head.decoder.weight)
    assert isinstance(changed.model.roberta.embeddings.word_embeddings, Int8Embedding)


@pytest.mark.parametrize("head", ["sentence", "masked-lm"])
def test_smoothing_changes_nothing_in_fp32_and_evens_out_channels(
    head: str, models: dict[str, Exportable], tmp_path: Path
) -> None:
    model = models[head]
    batches = Text.find(model, None, "text", tmp_path, tmp_path / "to").batches(model, longest=32)
    spiked = with_outlier(model)
    changed = smoothed(spiked.graph, batches)
    inputs = [torch.from_numpy(batches[-1][name]) for name in changed.inputs]
    seen: list[torch.Tensor] = []
    for graph in (spiked.graph, changed):
        query = graph.model.base_model.encoder.layer[1].attention.self.query
        query.register_forward_pre_hook(lambda _, given: seen.append(given[0].abs().flatten(0, -2).amax(0)))
    with torch.no_grad():
        before, after = spiked.graph(*inputs), changed(*inputs)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    spread = [float(largest.max() / largest.median()) for largest in seen]
    assert spread[0] > 30
    assert spread[1] < spread[0] / 4


def with_outlier(model: Exportable) -> Exportable:
    """Channel 5 of the vectors behind the first layer is forty times the others, as some are in trained encoders.

    What reads it has smaller weights, so that the model is not about this channel alone.
    """
    graph = with_int8_embeddings(model.graph)
    first, second = graph.model.base_model.encoder.layer
    with torch.no_grad():
        first.output.LayerNorm.weight[5] = first.output.LayerNorm.bias[5] = 40.0
        attention = second.attention.self
        for linear in (attention.query, attention.key, attention.value):
            linear.weight[:, 5] /= 40
    return Exportable(graph, model.teacher)


@pytest.mark.parametrize("static", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["dynamic", "static"])
def test_int8_loses_less_where_channels_were_evened_out(
    static: bool, models: dict[str, Exportable], tmp_path: Path
) -> None:
    model = with_outlier(models["sentence"])
    batches = Text.find(model, None, "text", tmp_path, tmp_path / "to").batches(model, longest=32)
    lost = []
    for graph in (model.graph, smoothed(model.graph, batches)):
        write_onnx(graph, tmp_path / "model.onnx")
        quantize_onnx(tmp_path / "model.onnx", batches if static else None, overflows())
        found = compare(model, open_file("onnx", tmp_path / "model.onnx", threads=1), batches)
        lost.append(1 - found["sentence_embedding"].mean_cosine)
    assert lost[1] < 0.7 * lost[0]


@pytest.mark.parametrize(
    ("instructions", "features", "expected"),
    [
        ("x86_64", ["avx2", "fma"], True),
        ("x86_64", ["avx2", "avx512f"], True),
        ("AMD64", "unknown", True),
        ("x86_64", ["avx2", "avx_vnni"], False),
        ("x86_64", ["avx2", "avx512f", "avx512_vnni"], False),
        ("aarch64", ["asimd"], False),
    ],
)
def test_weights_have_7_bits_where_sums_would_overflow(
    instructions: str,
    features: list[str] | str,
    expected: bool,
    models: dict[str, Exportable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8, "machine", lambda: {"instruction_set": instructions, "features": features})
    assert overflows() is expected
    write_onnx(models["sentence"].graph, tmp_path / "model.onnx")
    quantize_onnx(tmp_path / "model.onnx", None, overflows())
    graph = onnx.load(tmp_path / "model.onnx").graph
    weights = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.name.endswith("_quantized")]
    assert len(weights) == 2 * 6
    assert {int(np.abs(one.astype(int)).max()) for one in weights} <= ({63, 64} if expected else {127, 128})


def test_only_products_with_weights_are_quantised(models: dict[str, Exportable], tmp_path: Path) -> None:
    write_onnx(models["sentence"].graph, tmp_path / "model.onnx")
    quantize_onnx(tmp_path / "model.onnx", None, overflows())
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    # per layer: query, key, value, the output of attention, and two of the feed-forward; scores and their sums stay
    assert sum(node.op_type == "MatMulInteger" for node in nodes) == 2 * 6
    assert sum(node.op_type == "MatMul" for node in nodes) == 2 * 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_calibrated_files_quantise_what_goes_into_products_and_nothing_that_comes_out(
    models: dict[str, Exportable], tmp_path: Path
) -> None:
    model = models["sentence"]
    batches = Text.find(model, None, "text", tmp_path, tmp_path / "to").batches(model, longest=16)
    write_onnx(smoothed(model.graph, batches), tmp_path / "model.onnx")
    quantize_onnx(tmp_path / "model.onnx", batches, overflows())
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    # per layer: what query, key and value share, and what each of the three other products reads
    assert sum(node.op_type == "QuantizeLinear" for node in nodes) == 2 * 4


def test_each_output_channel_has_a_scale_of_its_own(models: dict[str, Exportable], tmp_path: Path) -> None:
    write_onnx(models["sentence"].graph, tmp_path / "model.onnx")
    quantize_onnx(tmp_path / "model.onnx", None, overflows())
    graph = onnx.load(tmp_path / "model.onnx").graph
    scales = [one for one in graph.initializer if "MatMul" in one.name and one.name.endswith("_scale")]
    assert sorted(int(np.prod(one.dims)) for one in scales) == [32] * 10 + [64] * 2


@pytest.mark.parametrize(("storage", "kept"), [("fp16", 11), ("bf16", 8)])
def test_16_bits_round_and_widen(storage: str, kept: int, models: dict[str, Exportable], tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    write_onnx(models["sentence"].graph, file)
    before = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(file).graph.initializer}
    store_in_16_bits(file, storage)  # type: ignore[arg-type]
    model = onnx.load(file)
    after = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    narrow = {name.removesuffix(f".{storage}"): value for name, value in after.items() if name.endswith(storage)}
    assert set(narrow) == {name for name, value in before.items() if value.dtype == np.float32 and value.size >= 1024}
    for name, value in narrow.items():
        # half a step, but for fp16's subnormal numbers
        np.testing.assert_allclose(value.astype(np.float32), before[name], rtol=2.0**-kept, atol=2.0**-25)
    onnx.checker.check_model(model)
