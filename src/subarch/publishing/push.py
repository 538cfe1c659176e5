"""Put the model of a run on a hub: a stock folder with its files for other runtimes, and a card with what is known.

    subarch push runs/mine me/small-encoder --dry-run folder      # only write what would be uploaded
    subarch push runs/mine me/small-encoder

    config.json, model.safetensors, tokenizer.json, modules.json, ...     the model as PyTorch loads it
    onnx/model.onnx, onnx/model_quantized.onnx                            its exports, as transformers.js names them
    openvino/openvino_model.xml, openvino_model_qint8_quantized.xml       and as sentence-transformers does
    onnx/parity.json, onnx/parity_quantized.json, ...                     how each of them compares with PyTorch
    certificate.json                                                      what the search proved
    README.md                                                             the card, with `model-index`

Nothing else of the run goes there: no corpus, no trials, and no paths of this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
from huggingface_hub import EvalResult, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from subarch.errors import EndpointFailed, InvalidConfig, InvalidStudy
from subarch.exporting.runtimes import FILES, PARITY, find_export
from subarch.models.teacher import Teacher
from subarch.run import Report, silent
from subarch.run.files import is_taken, write_json
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs
from subarch.run.records import Compressed, Evaluations, Parity, Pretraining, Retrieval, Selection

QUANTIZED = {"onnx": "model_quantized", "openvino": "openvino_model_qint8_quantized"}
"""Stems of files in int8."""
_OURS = ("README.md", "report.html", "predictions-*", "*.json.lock", ".*")
_RECORDS = {"report.json", "metrics.json", "fit.json", "heldout.json", "inputs.json", "agora.json"}
"""What evaluations and fine-tuning leave in a model's folder; it has examples and paths."""


def push(
    run: Path,
    name: str,
    dry_run: Path | None = None,
    private: bool = False,
    report: Report = silent,
    say: Callable[[str], object] = lambda sentence: None,
) -> str:
    """Upload the model of a run as the repository `name`; its address. With `dry_run`, write that folder only.

    Args:
        private: a repository that is made is private; one that is there stays as it is.
        say: called with every file that is uploaded, before that begins.

    Raises:
        InvalidConfig: no name of a repository.
        InvalidStudy: nothing is trained in full in the run; a folder that is not empty.
        EndpointFailed: the hub cannot be reached or refuses.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InvalidConfig(f"name {name!r}: {error}; write it as in user/model") from error
    if dry_run is not None:
        if is_taken(dry_run):
            raise InvalidStudy(f"{dry_run}: is there and not empty; name a new folder")
        gather(run, name, dry_run, say)
        return str(dry_run)
    with TemporaryDirectory() as folder:
        gather(run, name, Path(folder), say)
        report("uploading", 0, 0)
        api = HfApi()
        try:
            url = api.create_repo(name, private=private or None, exist_ok=True)
            api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Made with subarch")
        except OfflineModeIsEnabled as error:
            raise EndpointFailed(
                f"{name}: nothing was uploaded: HF_HUB_OFFLINE is set; unset it, or write the folder with --dry-run"
            ) from error
        except (HfHubHTTPError, httpx2.TransportError, OSError) as error:
            raise EndpointFailed(
                f"{name}: not uploaded, or not all of it: {' '.join(str(error).split())}; log in with `hf auth login` "
                "(a token that may write), and push again"
            ) from error
    return str(url)


def gather(run: Path, name: str, folder: Path, say: Callable[[str], object] = lambda sentence: None) -> None:
    """Write everything that is uploaded into `folder`, which is empty or missing.

    Raises:
        InvalidStudy: nothing is trained in full in the run.
    """
    model = _model(run)
    ignored = shutil.ignore_patterns(*_OURS, *_RECORDS, *FILES)
    shutil.copytree(model, folder, ignore=ignored, dirs_exist_ok=True)
    teacher = Teacher.load(model)
    parities = _add_exports(run, teacher.fingerprint, folder)
    selection = RunFolder(run).read(Selection) if RunFolder(run).has(Selection) else None
    if selection is not None and selection.certificate is not None:
        write_json(folder / "certificate.json", selection.certificate.to_dict())
    card = _card(run, model, name, selection, parities, _programs(name, teacher.width, parities))
    (folder / "README.md").write_text(str(card), encoding="utf-8")
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        say(f"{file.relative_to(folder)}: {file.stat().st_size:,} bytes")


def _model(run: Path) -> Path:
    """The model that came out last: of a compression what serves, else what was trained in full."""
    folder = RunFolder(run)
    compressed = folder.read(Compressed).model if folder.has(Compressed) else None
    model = run / (compressed or "pretrained")
    if not (model / "config.json").is_file():
        raise InvalidStudy(f"{run}: has no model that is trained in full; run `subarch pretrain {run}` first")
    return model


def _add_exports(run: Path, fingerprint: str, folder: Path) -> list[Parity]:
    """The exports of this very model; their parity, with the names that the files have now."""
    found = []
    for place in sorted({path.parent.parent for path in run.glob(f"exported/*/*/{PARITY}")}):
        file, record = find_export(place)
        quantized = record.variant == f"{record.runtime}-int8"
        if record.fingerprint != fingerprint or not (quantized or record.variant == record.runtime):
            continue  # of another model, or in a way that has no name there
        stem = QUANTIZED[record.runtime] if quantized else Path(FILES[record.runtime][0]).stem
        (folder / record.runtime).mkdir(exist_ok=True)
        for old in FILES[record.runtime]:
            shutil.copyfile(file.with_name(old), folder / record.runtime / f"{stem}{Path(old).suffix}")
        seals = {f"{stem}{Path(old).suffix}": seal for old, seal in record.files.items()}
        config = {key: value for key, value in record.config.items() if key != "corpus"}  # paths
        record = record.model_copy(update={"files": seals, "config": config})
        name = f"parity{'_quantized' if quantized else ''}.json"
        (folder / record.runtime / name).write_text(record.to_json(), encoding="utf-8")
        found.append(record)
    return found


def _card(
    run: Path, model: Path, name: str, selection: Selection | None, parities: list[Parity], programs: str
) -> ModelCard:
    """The model's own card with its results for the hub, what the other files are, and which programs take them."""
    card: ModelCard = ModelCard.load(model / "README.md")
    data: Any = card.data  # typed as that of any card
    if results := _results(run, model):
        data.model_name, data.eval_results = name.split("/")[-1], results
    blocks = [card.text.strip().replace("path/to/this/folder", name)]
    if parities:
        rows = ["| file | worst cosine with PyTorch | mean | measured on |", "|---|---|---|---|"]
        for one in parities:
            like = list(one.likeness.values())[-1]
            cosines = f"{like.worst_cosine:.4f} | {like.mean_cosine:.4f}"
            rows.append(f"| {one.runtime}/{next(iter(one.files))} | {cosines} | {one.machine.processor} |")
        note = "Compared on that processor only; int8 computes differently on others."
        blocks += ["## Files for other runtimes", "\n".join(rows), note]
    if programs:
        blocks += ["## In other programs", programs]
    if selection is not None:
        blocks += ["## What the search proved", selection.gap_sentence]
    blocks += ["## Lineage", _lineage(run)]
    card.text = "\n\n".join(blocks) + "\n"
    return card


def _programs(name: str, width: int, parities: list[Parity]) -> str:
    """How programs that are in wide use load the files of a sentence encoder; "" without any."""
    sentence = [one for one in parities if one.head == "sentence"]
    files = {file for one in sentence for file in one.files}
    runtimes = sorted({one.runtime for one in sentence if FILES[one.runtime][0] in one.files})
    lines = [f'sentence-transformers: `SentenceTransformer("{name}", backend="{runtime}")`' for runtime in runtimes]
    if "model.onnx" in files:
        lines += [
            f"Text Embeddings Inference, the image for CPUs: `--model-id {name}`",
            f'fastembed: `TextEmbedding.add_custom_model("{name}", sources=ModelSource(hf="{name}"), dim={width}, '
            'pooling=PoolingType.DISABLED, normalization=False, output_name="sentence_embedding")`',
        ]
    if f"{QUANTIZED['onnx']}.onnx" in files:
        code = f'(await AutoModel.from_pretrained("{name}", {{ dtype: "q8" }}))(inputs)'
        lines.append(f"transformers.js: `await {code}` has the embeddings as `sentence_embedding`")
    if lines and sentence[0].prefix:
        lines.append(f"sentence-transformers puts {sentence[0].prefix!r} before every text; for the others, you do")
    return "\n".join(f"- {line}" for line in lines)


def _lineage(run: Path) -> str:
    """Whose weights and outputs went in, by name and hash of their content."""
    folder, words = RunFolder(run), []
    if folder.has(StageInputs, "pretraining.inputs"):
        roles = {"teacher": "outputs of", "start_from": "weights of", "corpus": "text with the hash"}
        inputs = folder.read(StageInputs, "pretraining.inputs")
        for role, what in roles.items():
            if role in inputs.sources:
                source = inputs.sources[role]
                named = "" if role == "corpus" else f"{Path(source.path).name}, content "
                words.append(f"- {what} {named}{source.hash}")
        if "start_from" not in inputs.sources and "teacher" in inputs.sources:
            words[0] = words[0].replace("outputs of", "weights and outputs of")
    return "\n".join(words) or "Trained without a teacher."


def _results(run: Path, model: Path) -> list[EvalResult]:
    """What was measured of this very model, as the hub's `model-index` has it."""
    folder, found = RunFolder(run), list[EvalResult]()

    def add(task: str, kind: str, name: str, split: str, metric: str, value: float) -> None:
        given: dict[str, Any] = {"task_type": task, "dataset_type": kind, "dataset_name": name, "dataset_split": split}
        found.append(EvalResult(**given, metric_type=metric, metric_name=metric, metric_value=round(value, 4)))

    if folder.has(Pretraining) and model.name == "pretrained":
        error = folder.read(Pretraining).heldout[-1].get("error")
        if error is not None:
            text = "held-out text of the training corpus"
            add("sentence-similarity", "own", text, "held-out", "fidelity to the teacher", 1 - error)
    for file in sorted((run / "retrieval").glob(f"{model.name}-*.json")):
        record = Retrieval.model_validate_json(file.read_text("utf-8"))
        for metric, score in record.model.scores.metrics.items():
            add("text-ranking", record.collection, record.collection, record.part, metric, score.value)
    if RunFolder(model).has(Evaluations):
        for evaluation in RunFolder(model).read(Evaluations).evaluations:
            for metric, score in (evaluation.scores.metrics if evaluation.scores else {}).items():
                add("text-classification", evaluation.task, evaluation.task, evaluation.part, metric, score.value)
    return found
