"""Export a model for a runtime; the file is kept only if it computes what PyTorch does.

Everything is written into a hidden folder, where the file is run on batches of many sizes and lengths and compared with
PyTorch (`parity`). Only then does the folder get its name, so every export that is there has been compared. An earlier
export of that name is replaced; any other folder is refused.

    >>> model, run = places(Path("runs/mine"), None)
    >>> export(model, load(ExportConfig, None, {"quantize": "int8"}), run).likeness["sentence_embedding"].worst_cosine
    0.985
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from subarch.errors import InvalidExport
from subarch.exporting.config import ExportConfig
from subarch.exporting.graph import Exportable, Graph, load_exportable, store_in_16_bits, write_onnx
from subarch.exporting.int8 import overflows, quantize_onnx, quantize_openvino, smoothed, with_int8_embeddings
from subarch.exporting.parity import ABSOLUTE, RELATIVE, Batch, Text, compare, metric_drop, objection
from subarch.exporting.runtimes import FILES, PARITY, hashes, open_file, openvino, require
from subarch.models.sentence import copy_modules, save_tokenizer
from subarch.run import Report, silent
from subarch.run.files import replaced
from subarch.run.folder import places
from subarch.run.machine import machine, usable_cores, versions
from subarch.run.records import Likeness, Machine, MetricDrop, Parity
from subarch.show.card import card, facts_of_export

VERSION = 1
"""Version of parity.json."""

LONGEST = 512
"""Tokens of the longest sequence to calibrate and compare on, or fewer if the model reads fewer."""

SCRATCH = ".scratch"
"""Folder of intermediate files inside a partial export."""


def target(model: Path, config: ExportConfig, run: Path) -> Path:
    """Folder of an export: named by its variant, and also by its model if the run folder holds several."""
    if config.beside:
        return model / config.runtime
    main, own = places(run, None)[0].absolute(), model.absolute()
    others = (main / "config.json").is_file() or own.is_relative_to(run.absolute())
    return run / "exported" / (config.variant if own == main or not others else f"{own.name}-{config.variant}")


def export(model: Path, config: ExportConfig, run: Path, report: Report = silent) -> Parity:
    """Export a model, compare it with PyTorch, and return the content of parity.json, with the export's `folder`.

    Args:
        model: folder of the model, or its name on the hub.
        run: run folder; its corpus is used if none is given. The export goes to `target`.

    Raises:
        MissingExtra: the runtime is not installed.
        InvalidTeacher: the model cannot be loaded, is of an unknown family, or lacks the head that is asked for.
        InvalidCorpus: text that cannot be read, or too little text to calibrate on.
        InvalidExport: the file does not compute what PyTorch does, or cannot be written.
    """
    start = time.perf_counter()
    require(config.runtime)
    if config.beside and not model.is_dir():
        raise InvalidExport(f"{model}: no such folder to write into; leave --beside out")
    exportable = load_exportable(model, config.head)
    recipe, folder = exportable.teacher.recipe, target(model, config, run)
    with _replacing(folder) as partial:
        place = partial if config.beside else partial / config.runtime
        place.mkdir(exist_ok=True)
        longest = min(LONGEST, recipe.max_length)
        text = Text.find(exportable, config.corpus, config.text_column, run, partial / SCRATCH / "corpus")
        calibration = _calibration(exportable, text, config, longest)
        report("tracing", 0, 0)
        write(exportable.graph, config, calibration, place)
        batches = text.batches(exportable, longest)
        likeness, task = _compared(exportable, batches, config, place, report)
        exact = {"absolute": ABSOLUTE, "relative": RELATIVE}
        lossy = {"min_cosine": config.min_cosine, "max_drop": config.max_drop}
        masks = [batch["attention_mask"] for batch in batches]
        record = Parity(
            version=VERSION,
            model=model.absolute().name,
            fingerprint=exportable.teacher.fingerprint,
            head=exportable.graph.head,
            variant=config.variant,
            runtime=config.runtime,
            inputs=exportable.graph.inputs,
            outputs=tuple(exportable.graph.outputs),
            max_length=recipe.max_length,
            pad_token_id=int(exportable.teacher.tokenizer.pad_token_id),
            prefix=recipe.prefix,
            files=hashes(place, config.runtime),
            calibrated_on=len(calibration) if calibration else None,
            reduced_range=config.runtime == "onnx" and config.quantize in ("int8", "int8-static") and overflows(),
            likeness=likeness,
            limits=exact if config.is_exact else lossy,
            task=task,
            batches=tuple(mask.shape for mask in masks),
            sequences=sum(len(mask) for mask in masks),
            tokens=sum(int(mask.sum()) for mask in masks),
            text=text.about,
            config=config.model_dump(mode="json"),
            seconds=time.perf_counter() - start,
            versions=versions(),
            machine=Machine(**machine()),
        )
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        if not config.beside:
            _furnish(exportable, partial)
            told = card(folder, facts_of_export(exportable.teacher.folder, record))
            (partial / "README.md").write_text(told, encoding="utf-8")
        (place / PARITY).write_text(record.to_json(), encoding="utf-8")
    return record.model_copy(update={"folder": str(folder)})


def write(graph: Graph, config: ExportConfig, calibration: Sequence[Batch] | None, place: Path) -> None:
    """Write the files of a runtime into a folder, without any comparison.

    `calibration`: batches to take ranges from; None: there is no text. A full disk is an OSError.
    """
    if config.quantize:
        graph = with_int8_embeddings(graph)
    if calibration:
        graph = smoothed(graph, calibration)
    products = config.quantize in ("int8", "int8-static")
    ranges = calibration if config.quantize == "int8-static" else None
    file = place / FILES["onnx"][0]
    write_onnx(graph, file)
    if config.runtime == "onnx":
        if products:
            quantize_onnx(file, ranges, reduce_range=overflows())
        if config.storage != "fp32":
            store_in_16_bits(file, config.storage)
        return
    converted = openvino().convert_model(file)
    if products:
        converted = quantize_openvino(converted, ranges)
    try:
        openvino().save_model(converted, place / FILES["openvino"][0], compress_to_fp16=config.storage == "fp16")
    except RuntimeError as error:  # OpenVINO's way to report that the system refuses to write
        raise OSError(f"OpenVINO: {error}") from error
    file.unlink()


def _calibration(model: Exportable, text: Text, config: ExportConfig, longest: int) -> list[Batch] | None:
    """Batches to calibrate int8 on, or None; OpenVINO's `int8` needs none, since it leaves the inputs in fp32."""
    smoothable = config.quantize == "int8" and config.runtime == "onnx" and len(text.train) > 0
    if config.quantize == "int8-static" or smoothable:
        return text.calibration(model, config.calibration, longest)
    return None


def _compared(
    model: Exportable, batches: Sequence[Batch], config: ExportConfig, place: Path, report: Report
) -> tuple[dict[str, Likeness], MetricDrop | None]:
    """How alike the outputs are, and what the task's metric loses; InvalidExport beyond the limits."""
    session = open_file(config.runtime, place / FILES[config.runtime][0], usable_cores())
    found = compare(model, session, batches, report)
    against = objection(config, found)
    task = None if against else metric_drop(model, session, report)
    if task and task.drop is not None and not config.is_exact and not task.drop <= config.max_drop:
        against = (
            f"{task.metric} on {task.examples} held-out examples of {task.name} drops from {task.pytorch:.4f} to "
            f"{task.exported:.4f}, the limit is {config.max_drop:g}; quantise less or in another way, or allow it with "
            "--max-drop"
        )
    if against:
        raise InvalidExport(f"{model.teacher.folder}: the export {config.variant} was not kept: {against}")
    return found, task


def _furnish(exportable: Exportable, folder: Path) -> None:
    """Add configuration, tokenizer and, for a sentence encoder, its modules: what the programs that load it read."""
    model = exportable.teacher.folder
    shutil.copyfile(model / "config.json", folder / "config.json")
    recipe = exportable.teacher.recipe
    save_tokenizer(exportable.teacher.tokenizer, folder, recipe.max_length)
    if exportable.graph.head == "sentence" and (model / "modules.json").is_file():
        copy_modules(model, recipe, exportable.graph.model.config.hidden_size, folder)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A hidden folder to write into, which replaces `folder` if nothing is raised."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            if folder.exists() and not any(folder.glob(f"**/{PARITY}")):
                raise InvalidExport(f"{folder}: exists already and is not an export of this program; move it away")
            with replaced(folder) as partial:
                yield partial
    except Timeout as error:
        raise InvalidExport(f"{folder}: another process is exporting there; wait for it to end") from error
    except OSError as error:
        raise InvalidExport(
            f"{folder}: cannot be written: {error}; nothing was kept: free some space, or choose another folder"
        ) from error
