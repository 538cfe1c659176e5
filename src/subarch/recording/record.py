"""A corpus and an endpoint -> a file of texts and vectors that a student can be trained on.

    >>> config = load(RecordConfig, None, {"endpoint": "http://localhost:8000/v1", "model": "bge-m3", ...})
    >>> record(config).width
    1024

All vectors must be of one model, so each answer is compared with what the first one said: the model's name and the
width. Where a recording goes on, and after a lost connection, the first text is asked for once more, and its vector
must be what it was: a name alone does not tell that other weights are behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import EndpointFailed, InvalidConfig, show
from subarch.recording.config import RecordConfig
from subarch.recording.endpoint import Answer, Endpoint, Stopped
from subarch.recording.kept import Kept, Recording
from subarch.recording.texts import wanted
from subarch.run import Report, silent
from subarch.run.record import Record

LIKE = 0.999
"""Least cosine of two vectors that one model gives for one text."""

CHARACTERS_PER_TOKEN = 4
"""A usual figure for English; other languages and code take more tokens."""

Piece = tuple[int, str]
"""(place in the corpus, text)"""


class Recorded(Record):
    """What a recording came to, or with --dry-run what it would come to.

    Attributes:
        texts: distinct texts of the corpus.
        known: of these, recorded before.
        estimated_tokens: of those that were not, by their characters; `estimated_cost` at the price given.
        tokens: as the server counted them in this call; 0 if it does not say. `cost` at the price given.
        rows: texts in the file.
    """

    NAME = "recorded"

    file: str
    model: str
    texts: int
    known: int
    estimated_tokens: int
    estimated_cost: float | None = None
    rows: int | None = None
    served: str | None = None
    width: int | None = None
    tokens: int | None = None
    cost: float | None = None
    requests: int | None = None
    retries: int | None = None
    seconds: float | None = None


def record(
    config: RecordConfig,
    *,
    dry_run: bool = False,
    say: Callable[[str], object] = lambda sentence: None,
    report: Report = silent,
) -> Recorded:
    """Ask for the vector of every text of the corpus that has none yet; the same call goes on where one stopped.

    Args:
        dry_run: only say what it would take; nothing is asked or written.
        say: called with what it will take, before it begins.

    Raises:
        EndpointFailed: the server refuses, gives what is no answer, or is another model than before.
        InvalidCorpus: no text.
        InvalidConfig: the file is of another model or prompt, no recording, in use, or cannot be written.
    """
    texts = wanted(config, report)
    with Kept(config.out) as kept:
        if kept.recording is not None:
            _check_asked(config, kept.recording)
        have = kept.texts()
        missing = [(place, text) for place, text in enumerate(texts) if text not in have]
        characters = sum(len(config.prompt or "") + len(text) for _, text in missing)
        estimate = -(-characters // CHARACTERS_PER_TOKEN)
        planned = Recorded(
            file=str(config.out),
            model=config.model,
            texts=len(texts),
            known=len(texts) - len(missing),
            estimated_tokens=estimate,
            **_priced("estimated_cost", estimate, config.price),
        )
        say(_sentence(planned, config.price))
        if dry_run:
            return planned
        began = time.monotonic()
        tokens = requests = retries = 0
        if missing:
            kept.begin()
            with closing(Endpoint(config)) as endpoint:
                tokens = _Session(config, endpoint, kept, texts).run(missing, report)
            requests, retries = endpoint.requests, endpoint.retries
        rows = kept.finish()
        assert kept.recording is not None
        return Recorded(
            **planned.to_dict(),
            rows=rows,
            served=kept.recording.served,
            width=kept.recording.width,
            tokens=tokens,
            **_priced("cost", tokens, config.price),
            requests=requests,
            retries=retries,
            seconds=round(time.monotonic() - began, 3),
        )


class _Session:
    """The part of a recording that talks to the server. Threads ask; only the caller's thread keeps answers."""

    def __init__(self, config: RecordConfig, endpoint: Endpoint, kept: Kept, groups: Mapping[str, str | None]) -> None:
        self.config, self.endpoint, self.kept, self.groups = config, endpoint, kept, groups
        self.done = self.tokens = 0
        self.is_same = True  # as far as known; else answers under way are not kept

    def run(self, missing: Sequence[Piece], report: Report) -> int:
        """Ask for all that is missing; the tokens that the server counted."""
        self._probe()
        size = self.config.texts_per_request
        batches = iter([missing[first : first + size] for first in range(0, len(missing), size)])
        asked: dict[Future[Answer], Sequence[Piece]] = {}
        with ThreadPoolExecutor(self.config.concurrency) as pool:
            try:
                while True:
                    for batch in islice(batches, self.config.concurrency - len(asked)):
                        asked[pool.submit(self.endpoint.embed, [text for _, text in batch])] = batch
                    if not asked:
                        return self.tokens
                    answered = wait(asked, timeout=1, return_when=FIRST_COMPLETED).done
                    if self.endpoint.was_lost and any(future.exception() is None for future in answered):
                        self.endpoint.was_lost = False
                        self._probe()
                    for future in answered:
                        self._keep(asked[future], future.result())
                        del asked[future]  # not before: Ctrl-C may come in between
                    trouble = f", trying again: {self.endpoint.trouble}" if self.endpoint.trouble else ""
                    report(f"recording{trouble}", self.done, len(missing))
            except BaseException:
                self.endpoint.stop()
                under_way = wait(asked).done  # they are paid for
                for future in under_way if self.is_same and not self.endpoint.was_lost else ():
                    with suppress(EndpointFailed, Stopped):
                        self._keep(asked[future], future.result())
                raise

    def _probe(self) -> None:
        """Is the model behind the name still the one whose vectors are kept?"""
        first = self.kept.first()
        if first is None:
            return
        text, vector = first
        self.is_same = False
        answer = self.endpoint.embed([text])
        self.tokens += answer.tokens
        self._check_model(answer)
        cosine = _cosine(answer.vectors[0], vector)
        if cosine < LIKE:
            raise EndpointFailed(
                f"{self.config.out}: the model {self.config.model!r} has changed: the text {show(text)} has another "
                f"vector now (cosine {cosine:.4f} with what is kept); {_CHANGED}"
            )
        self.is_same = True

    def _keep(self, batch: Sequence[Piece], answer: Answer) -> None:
        if self.kept.recording is None:
            self.kept.describe(
                Recording(
                    model=self.config.model,
                    served=answer.model,
                    prompt=self.config.prompt,
                    dimensions=self.config.dimensions,
                    width=answer.vectors.shape[1],
                    date=time.strftime("%Y-%m-%d"),
                )
            )
        self._check_model(answer)
        rows = zip(batch, answer.vectors, strict=True)
        self.kept.add([(place, text, self.groups[text], vector) for (place, text), vector in rows])
        self.done += len(batch)
        self.tokens += answer.tokens

    def _check_model(self, answer: Answer) -> None:
        before = self.kept.recording
        assert before is not None
        if answer.model != before.served:
            raise EndpointFailed(
                f"{self.config.out}: the server answers as model {answer.model!r}, and what is kept was answered by "
                f"{before.served!r}; {_CHANGED}"
            )
        if (width := answer.vectors.shape[1]) != before.width:
            raise EndpointFailed(
                f"{self.config.out}: the model {self.config.model!r} answers vectors of {width} numbers, and what is "
                f"kept has {before.width}; {_CHANGED}"
            )


_CHANGED = "serve that model again, or record this one into another file (--out)"


def _check_asked(config: RecordConfig, before: Recording) -> None:
    """Refuse what would put vectors of another kind into the file."""
    for key in ("model", "prompt", "dimensions"):
        old, new = getattr(before, key), getattr(config, key)
        if old != new:
            raise InvalidConfig(
                f"--{key}: {config.out} was recorded with {show(old)}, and {show(new)} is asked for; give "
                f"{show(old)}, or another --out"
            )


def _priced(key: str, tokens: int, price: float | None) -> dict[str, Any]:
    return {} if price is None else {key: tokens * price / 1e6}


def _sentence(planned: Recorded, price: float | None) -> str:
    known = f" ({planned.known:,} of {planned.texts:,} are recorded already)" if planned.known else ""
    cost = "" if planned.estimated_cost is None else f", about {planned.estimated_cost:.4g} at {price:g} a million"
    return (
        f"{planned.texts - planned.known:,} texts to record{known}: about {planned.estimated_tokens:,} tokens, "
        f"estimated as characters / {CHARACTERS_PER_TOKEN}{cost}"
    )


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
