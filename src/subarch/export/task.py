"""What an export costs a fine-tuned model in the metric of its task.

A folder that `subarch finetune` left says in its metrics.json which task it is for and where the data lay. Its held-out
examples, which neither chose nor trained it, go through the stock model and through the exported file.

    >>> metric_drop(exportable, session)
    {'name': 'sst2', 'examples': 872, 'metric': 'accuracy', 'pytorch': 0.9, 'exported': 0.897, 'drop': 0.003}
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from subarch.errors import InvalidTask
from subarch.export.exportable import Exportable
from subarch.latency.runtimes import Session
from subarch.models.heads import columns_of, encode, labels_of, logits_of, tokenizer_for
from subarch.run.folder import RunFolder
from subarch.run.progress import Report, silent
from subarch.run.records import Metrics
from subarch.tasks import score
from subarch.tasks.division import TaskData, parts_of
from subarch.tasks.metrics import primary

MOST = 1000
"""Examples that are predicted at most, the first of the part."""


class _AsModel:
    """An exported file with the manners of the stock model it was made from."""

    def __init__(self, session: Session, model: Any) -> None:
        self._session, self.config, self.device = session, model.config, torch.device("cpu")

    def __call__(self, **inputs: Tensor) -> SimpleNamespace:
        found = self._session({name: value.numpy() for name, value in inputs.items()})
        return SimpleNamespace(logits=torch.from_numpy(found["logits"]))


def metric_drop(model: Exportable, session: Session, report: Report = silent) -> dict[str, Any] | None:
    """Scores of both on held-out examples, and the difference; None for a model that is not fine-tuned for a task.

    Where the data is gone, `unknown` says why there are no scores.
    """
    folder = RunFolder(model.teacher.folder)
    if model.graph.head not in ("classification", "choice") or not folder.has(Metrics):
        return None
    config = folder.read(Metrics).config
    try:
        examples = parts_of(TaskData.of(config)).heldout[:MOST]
    except InvalidTask as error:
        return {"name": config["task"], "unknown": str(error)}
    task, stock = examples.task, model.graph.model
    tokenizer = tokenizer_for(model.teacher, config["max_length"])
    encoded, _ = encode(examples, tokenizer)
    values = []
    for what, runner in (("scoring PyTorch", stock), ("scoring the file", _AsModel(session, stock))):
        report(what, 0, 0)
        logits = logits_of(runner, encoded, tokenizer, task)
        if task.head != "choice":
            logits = logits[:, columns_of(stock, task)]
        values.append(score(examples, labels_of(task, logits))[primary(task)])
    return {
        "name": config["task"],
        "examples": len(examples),
        "metric": primary(task),
        "pytorch": values[0],
        "exported": values[1],
        "drop": values[0] - values[1],
    }
