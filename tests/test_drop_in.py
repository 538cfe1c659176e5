"""One folder, as `subarch push` writes it, in the programs that people run: the same vectors in each of them.

The programs lie in environments of their own, which `make drop-in` makes; without one its tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from subarch.exporting.config import ExportConfig
from subarch.exporting.runtimes import open_file
from subarch.pipeline import export, extract, pretrain
from subarch.pretraining.pretrain import configure
from subarch.publishing.push import gather
from subarch.run.configuration import load
from tiny_run import OneProcess, tiny_config

pytestmark = pytest.mark.slow

PLACE = Path(sys.prefix) / "drop-in"
TEXTS = ["the old boat", "one bell", "the teacher takes the one pen under every lesson " * 9]
"""The last is longer than the model reads."""

BACKEND = """
from sentence_transformers import SentenceTransformer
backend, file = sys.argv[3:]
options = {"file_name": file} | ({"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}} if backend == "openvino" else {})
model = SentenceTransformer(folder, backend=backend, model_kwargs=options, device="cpu")
vectors = model.encode(texts, batch_size=1)
"""
FASTEMBED = """
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
TextEmbedding.add_custom_model("me/small", sources=ModelSource(hf="me/small"), dim=int(sys.argv[4]),
    pooling=PoolingType.DISABLED, normalization=False, output_name="sentence_embedding", model_file=sys.argv[3])
model = TextEmbedding("me/small", specific_model_path=folder, threads=1)
vectors = np.stack(list(model.embed(texts, batch_size=1)))
"""
LANGCHAIN = """
from langchain_huggingface import HuggingFaceEmbeddings
model = HuggingFaceEmbeddings(model_name=folder, model_kwargs={"device": "cpu"})
vectors = np.array([model.embed_query(texts[0]), *model.embed_documents(texts[1:])])
"""
LLAMA_INDEX = """
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
model = HuggingFaceEmbedding(folder, device="cpu")
vectors = np.array([model.get_query_embedding(texts[0]), *model.get_text_embedding_batch(texts[1:])])
"""
TRANSFORMERS_JS = """
import { AutoModel, AutoTokenizer, env } from "@huggingface/transformers";
env.allowRemoteModels = false;
const [folder, texts, dtype] = process.argv.slice(2);
const tokenizer = await AutoTokenizer.from_pretrained(folder);
const model = await AutoModel.from_pretrained(folder, { dtype, session_options: { intraOpNumThreads: 1 } });
const vectors = [];
for (const text of JSON.parse(texts)) {
  const inputs = tokenizer([text], { padding: true, truncation: true });
  vectors.push((await model(inputs)).sentence_embedding.tolist()[0]);
}
console.log(JSON.stringify(vectors));
"""

Vectors = NDArray[np.float64]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained student, narrower than its teacher, so that it has a map; with all exports."""
    folder = tmp_path_factory.mktemp("drop-in")
    config = tiny_config(folder, strategy="certified", repeats=1, audit=0, max_parameters=9_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(config, folder / "run")
    pretrain(folder / "run", configure(folder / "run", None, {"steps": 2, "batch_tokens": 256, "evaluations": 1}))
    for runtime in ("onnx", "openvino"):
        for quantize in (None, "int8"):
            given = {"runtime": runtime, "quantize": quantize, "calibration": 16, "min_cosine": 0.5}
            export(folder / "run" / "pretrained", load(ExportConfig, None, given), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pushed") / "small"
    gather(run, "me/small", place)
    return place


@pytest.fixture(scope="module")
def expected(run: Path) -> Vectors:
    """What sentence-transformers computes of the model in PyTorch."""
    return np.asarray(SentenceTransformer(str(run / "pretrained"), device="cpu").encode(TEXTS))


def environment(name: str) -> Path:
    if not (PLACE / name).is_dir():
        pytest.skip(f"the environment {name} is not there: `make drop-in` makes it")
    return PLACE / name


def answer(command: Sequence[str | Path], folder: Path) -> Vectors:
    """The vectors on the last line that a program prints; it has no network and no path of ours."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean | {"HF_HUB_OFFLINE": "1"}, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def from_python(name: str, code: str, folder: Path, *options: str) -> Vectors:
    start = "import json, sys\nimport numpy as np\nfolder, texts = sys.argv[1], json.loads(sys.argv[2])\n"
    end = "print(json.dumps(np.asarray(vectors).tolist()))"
    python = environment(name) / "bin" / "python"
    return answer([python, "-c", start + code + end, str(folder), json.dumps(TEXTS), *options], folder)


def from_file(engine: Any, folder: Path, file: str) -> Vectors:
    """What a file computes of each text alone: int8 depends on what else is in the batch."""
    tokenizer = SentenceTransformer(str(folder), device="cpu").tokenizer
    session = open_file(engine, folder / file, 1)
    rows = [dict(tokenizer([text], truncation=True, return_tensors="np")) for text in TEXTS]
    return np.concatenate([session(row)["sentence_embedding"] for row in rows])


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_backends_of_sentence_transformers(engine: str, run: Path, folder: Path, expected: Vectors) -> None:
    name = {"onnx": "optimum-onnx", "openvino": "optimum-intel"}[engine]
    stem = {"onnx": "onnx/model{}.onnx", "openvino": "openvino/openvino_model{}.xml"}[engine]
    small = {"onnx": "_quantized", "openvino": "_qint8_quantized"}[engine]
    np.testing.assert_allclose(from_python(name, BACKEND, folder, engine, stem.format("")), expected, atol=1e-4)
    alone = run / "exported" / engine
    np.testing.assert_allclose(from_python(name, BACKEND, alone, engine, stem.format("")), expected, atol=1e-4)
    quantized = from_python(name, BACKEND, folder, engine, stem.format(small))
    # The map behind the pooling is int8 in the file, and PyTorch's own there
    np.testing.assert_allclose(quantized, from_file(engine, folder, stem.format(small)), atol=1e-2)
    assert np.abs(quantized - expected).max() > 1e-4


def test_fastembed(folder: Path, expected: Vectors) -> None:
    width = str(expected.shape[1])
    found = from_python("others", FASTEMBED, folder, "onnx/model.onnx", width)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    small = "onnx/model_quantized.onnx"
    found = from_python("others", FASTEMBED, folder, small, width)
    np.testing.assert_allclose(found, from_file("onnx", folder, small), atol=1e-4)


@pytest.mark.parametrize("code", [LANGCHAIN, LLAMA_INDEX], ids=["langchain", "llama-index"])
def test_what_stands_on_sentence_transformers(code: str, folder: Path, expected: Vectors) -> None:
    np.testing.assert_allclose(from_python("others", code, folder), expected, atol=1e-4)


def test_transformers_js(folder: Path, expected: Vectors) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    script = environment("node") / "embed.mjs"  # where its packages are found
    script.write_text(TRANSFORMERS_JS)
    # Of a text that is too long it cuts off the token that closes a sequence, as of every model
    command = ["node", str(script), str(folder), json.dumps(TEXTS[:2])]
    np.testing.assert_allclose(answer([*command, "fp32"], folder), expected[:2], atol=1e-4)
    quantized = answer([*command, "q8"], folder)
    np.testing.assert_allclose(quantized, from_file("onnx", folder, "onnx/model_quantized.onnx")[:2], atol=1e-4)
