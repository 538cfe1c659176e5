"""What the stages leave in a run folder, typed: one class per JSON file, with the keys of the file as attributes.

    >>> RunFolder.open(Path("runs/mine")).read(Selection).winner.architecture
    '3-12-384-512'

Every record is read strictly (a number that is text, a missing key or an unknown one is refused) and written back byte
for byte. Keys with the default None are left out of the file when they are not set. Durations are in seconds unless the
name ends in `_ms`. A record that only one folder reads and writes is a `Record` of that folder.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from subarch.run.record import Bare, FileSeal, Free, Number, Record, Row, Shape

# The machine


class Cores(Row):
    """Processor cores; `usable` is what the affinity mask and a container's quota leave."""

    logical: int | None
    physical: int | None
    usable: int


class Machine(Row):
    processor: str
    instruction_set: str
    features: list[str] | str
    cores: Cores
    memory_gib: float
    system: str


Versions = dict[str, str]


class Environment(Record):
    NAME = "environment"

    versions: Versions
    git: str | None
    machine: Machine


# Extraction


class Space(Record):
    NAME = "space"

    depth: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    intermediate: tuple[int, ...]
    vocabulary: tuple[int, ...] = (0,)


class StudyName(Bare):
    NAME = "study"

    value: str


class EncoderInputs(Row):
    vocabulary: int
    positions: int
    token_types: int
    output: int
    mapped: bool = False
    family: str = "bert"
    window: int = 128
    global_every: int = 3
    biases: tuple[str, ...] = ()
    head: str = ""
    classes: int = 0


class EncoderBlueprint(Row):
    family: str
    inputs: EncoderInputs
    pooling: str
    masked_lm: bool
    settings: Free
    task: TaskOutputs | None = None


class TaskOutputs(Row):
    """What a model with the head of a task says; see `models.outputs.Outputs`."""

    kind: str
    names: tuple[str, ...]
    separator: int | None
    settings: Free


class EmbeddingRecipe(Row):
    pooling: str
    dense: tuple[tuple[str, str], ...]
    normalize: bool
    prefix: str
    max_length: int
    lower_case: bool
    prompts: tuple[tuple[str, str], ...] = ()
    similarity: str = "cosine"


class Teacher(Row):
    """The teacher, as far as candidates are compared with it; `operations` at the run's `latency_length`.

    Architecture and operations are known of teachers that a student can start from, parameters of those that run here.
    `timed`: whether it has a latency.
    """

    name: str
    architecture: Shape | None
    parameters: int | None
    operations: int | None
    timed: bool
    latency_ms: float | None = None


class KeptVocabulary(Row):
    """A vocabulary besides the whole one: its size, the mean tokens of a text, and the settings that it changes."""

    size: int
    tokens: float
    settings: Free


class Basis(Record):
    """What all candidates of a run share, and what they are measured against.

    `keep` takes a share of `reference_error`; a trial's error depends on `identity`, candidate and settings only.
    `start` is what candidates take weights from, `constant_distance` the mean cosine distance that is left by the best
    constant vector, which embedding errors are shares of. `tokens` is the mean number that the whole vocabulary makes
    of a text of the corpus, where candidates have others too.
    """

    NAME = "basis"

    inputs: EncoderInputs
    blueprint: EncoderBlueprint
    recipe: EmbeddingRecipe
    teacher: Teacher | None
    start: Shape | None
    reference_error: float | None
    constant_distance: float | None
    identity: Free
    seconds: float
    tokens: float | None = None
    vocabularies: tuple[KeptVocabulary, ...] = ()

    def longer(self, length: int) -> dict[int, int]:
        """By V how many tokens it makes of a text of which the whole vocabulary makes `length`, cut at what is read.

        The ratio is that of the mean numbers of tokens of the run's texts.
        """
        most = max(self.recipe.max_length, length)
        return {
            one.size: min(round(length * one.tokens / (self.tokens or one.tokens)), most) for one in self.vocabularies
        }


class LayerTrial(Row):
    """A short training of a candidate that keeps these layers of the start (from 0); without an error it failed."""

    architecture: Shape
    layers: tuple[int, ...]
    proposed: str
    steps: int
    error: float | None
    seconds: float


class Layers(Record):
    """Which layers of the start (its fingerprint) candidates keep, `chosen` by depth, and the trials that decided it.

    `ranked` are all its layers, by greedy removal, the one that it needs most first: what is kept at a depth without a
    choice, and one of the proposals where there is a choice.
    """

    NAME = "layers"

    start: str
    ranked: tuple[int, ...]
    trials: tuple[LayerTrial, ...]
    chosen: dict[str, tuple[int, ...]]

    def is_settled(self, depth: int) -> bool:
        """Whether the layers of this depth were chosen, or there is no choice."""
        return not 0 < depth < len(self.ranked) or str(depth) in self.chosen

    @property
    def seconds(self) -> float:
        """Of training, summed over workers."""
        return sum(trial.seconds for trial in self.trials)


class LatencySettings(Row):
    """What a latency was measured at; `length` is a list where it is the corpus's.

    `longer` are the lengths, by V, of the same text as another vocabulary than the whole one reads it.
    """

    runtime: str
    batch: int
    length: int | tuple[int, ...]
    threads: int
    longer: dict[str, int | tuple[int, ...]] | None = None


Milliseconds = Annotated[float, Field(gt=0)]


class Timing(Row):
    """Wall time of a forward pass, over so many passes."""

    median_ms: Milliseconds
    q1_ms: Milliseconds
    q3_ms: Milliseconds
    p95_ms: Milliseconds
    passes: int


class Measured(Row):
    """A measured latency: the median of its visits, when it was measured last, and what that is corrected by.

    `visits` are the medians of the passes of each visit on the scale of the first block, `blocks` how many visits came
    from each block, in order. `drift` is the correction of the block that needed most, `others` how many cores other
    programs kept busy during the busiest one (None: the system does not tell).
    """

    median_ms: Milliseconds
    visits: tuple[Milliseconds, ...]
    blocks: tuple[int, ...]
    passes: int
    measured: str
    drift: float
    others: float | None


class Predicted(Row):
    median_ms: Annotated[float, Field(ge=0)]
    predicted: Literal[True]


class LatencyFit(Row):
    """The model that predicts latencies: milliseconds by term, its relative errors, and what it was fitted to."""

    terms: dict[str, float]
    median_error: float
    p90_error: float
    measured: int
    left_near_limit: int


class Latencies(Record):
    """Latencies by architecture. `confirmed` are those that were measured later, for the first time or again."""

    NAME = "latency"

    settings: LatencySettings
    machine: Machine
    teacher: Measured | None
    candidates: dict[Shape, Measured | Predicted]
    model: LatencyFit | None
    seconds: float
    confirmed: dict[Shape, Measured] | None = None

    def milliseconds(self) -> dict[Shape, float]:
        """The latency of each candidate, measured where it was."""
        return {name: entry.median_ms for name, entry in (self.candidates | (self.confirmed or {})).items()}

    def digest(self) -> str:
        """SHA-256 of the teacher's and these figures, by which a selection names the ones that it was made from."""
        entries = {**self.candidates, **(self.confirmed or {}), "teacher": self.teacher}
        figures = {name: None if entry is None else entry.to_dict() for name, entry in entries.items()}
        return hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()


class Hyperparameters(Row):
    """One element of Θ, as it is shown; a candidate that was not trained has none."""

    learning_rate: float | None = None
    batch_size: int | None = None


class TrialRow(Row):
    """A trial; `curve` are (step, error, seconds)."""

    number: int
    architecture: Shape
    hyperparameters: Hyperparameters
    seed: int
    steps: int
    state: Literal["complete", "failed"]
    reason: str | None
    error: float | None
    curve: tuple[tuple[int, float, float], ...]
    seconds: float
    threads: int


class OrderRow(Row):
    """A candidate in order of cost, as the report draws it."""

    architecture: Shape
    parameters: int
    cost: float
    cost_predicted: bool
    trained: bool
    grid: bool
    error: float | None
    w: float | None


class Conclusion(Record):
    NAME = "conclusion"

    trials: tuple[TrialRow, ...]
    order: tuple[OrderRow, ...]


class Candidate(Row):
    """A candidate with its figures; those of training are None where it was not trained.

    `latency_interval_ms` is what the median can be, see `latency.interval`; None where it was predicted.
    `reason` is why another one was selected, `megabytes` there where the file is limited. What `parameters` has besides
    embeddings and encoder is the map to the output width, or the head of a task.
    """

    architecture: Shape
    parameters: int
    encoder_parameters: int
    operations: int
    latency_ms: float | None
    latency_interval_ms: tuple[float, float] | None
    latency_predicted: bool
    error: float | None
    error_kind: str
    hyperparameters: Hyperparameters
    trial: int | None
    w: float | None
    embedding_parameters: int | None = None
    megabytes: float | None = None
    reason: str | None = None


class Limits(Row):
    """The objective and its limits. The limit of cost is in milliseconds or in operations: one of the two is there.

    `megabytes_in` is the runtime whose file is limited.
    """

    name: str
    max_latency_ms: Number | None = None
    max_operations: Number | None = None
    max_parameters: Number | None
    max_megabytes: Number | None = None
    megabytes_in: str | None = None
    max_error: float | None
    keep: float | None


class Nearest(Row):
    """The candidate that comes nearest to the limits, and the limits that it would need."""

    row: Candidate
    limits: dict[str, Number]
    sentence: str


class SearchStrategy(Row):
    name: str
    epsilon: Number | None
    steps: int
    hyperparameters: tuple[Hyperparameters, ...]


class GapRow(Row):
    """What candidates that were not trained may still offer, see `search.base.Gap`; figures that are infinite: None."""

    bound: float | None
    best: float | None
    absolute: float | None
    violations: int
    architecture: Shape | None


class CertificateNoise(Row):
    """Random seed noise: how far the difference of two errors may be off, with what confidence (`level`), and the
    standard deviation of one error and its degrees of freedom that this comes from."""

    eta: float
    deviation: float
    freedom: int
    level: float


class CertificateAudit(Row):
    """Excluded candidates that were drawn and trained, how many contradict, and the bound on the share that does."""

    drawn: tuple[Shape, ...]
    failures: int
    failing: float


class CertificateLatency(Row):
    """What a certificate assumes of latencies under a limit; with a `ratio` that is a share of the teacher's.

    `limit_ms` is an interval too. `undecided` cannot be told apart from it, and count as over it; `near` is the number
    of those within a quarter of it, `probability` that all that decide are on their side of it.
    """

    ratio: float | None
    limit_ms: tuple[float, float]
    undecided: tuple[Shape, ...]
    near: int
    probability: float


class CertificateHeads(Row):
    """The numbers of heads of the incumbent's shape: how many, those over a limit, failed, not trained, the best."""

    candidates: int
    over: int
    failed: int
    left: tuple[Shape, ...]
    best: Shape | None


class Certificate(Row):
    """What the trials of a certified search prove, see `search.certified.Evidence`.

    `excluded` names the trained candidate that bounds each other one best, None: its cost alone excludes it. `heads` is
    None where one number of heads was a candidate for each shape, `latency` where no measured one is limited. `equal`
    are the trained candidates that cannot be told apart from the incumbent. `probability` is that of errors and
    latencies together.
    """

    incumbent: Shape | None
    closed: bool
    delta: float
    aim: float
    reached: float | None
    noise: CertificateNoise
    latency: CertificateLatency | None
    probability: float
    equal: tuple[Shape, ...]
    slack: float
    violations: int
    heads: CertificateHeads | None
    audit: CertificateAudit
    candidates: int
    affordable: int
    trained: tuple[Shape, ...]
    over: int
    excluded: dict[Shape, Shape | None]
    sentence: str


class LatencyModelErrors(Row):
    median_error: float
    p90_error: float
    measured: int


class LatencyMeasurement(LatencySettings):
    """How the latencies of a selection came about; `sha256` is that of the figures, see `Latencies.digest`."""

    measured: int
    predicted: int
    sha256: str
    model: LatencyModelErrors | None
    sentence: str
    warnings: tuple[str, ...]


class LedgerRow(Row):
    what: str
    seconds: Number


class AbncCondition(Row):
    name: str
    holds: bool | None
    value: float | None
    sentence: str


class AbncAgreement(Row):
    """See `numbers.abnc.RankAgreement`; `steps` are those of the two runs compared."""

    tau: float
    low: float
    high: float
    candidates: int
    steps: tuple[int, int]


class Abnc(Row):
    verdict: str
    conditions: tuple[AbncCondition, ...]
    rank_agreement: AbncAgreement | None


class Selection(Record):
    NAME = "selection"

    version: int
    objective: Limits
    outcome: Literal["selected", "infeasible"]
    winner: Candidate | None
    nearest: Nearest | None
    ties: tuple[Shape, ...]
    frontier: tuple[Shape, ...]
    candidates: tuple[Candidate, ...]
    strategy: SearchStrategy
    gap: GapRow | None
    gap_sentence: str
    layers_sentence: str | None = None
    languages: dict[str, float] | None = None
    """The winner's error on the held-out text of each language, where the corpus names them."""
    certificate: Certificate | None
    maximum_point: Shape
    teacher: Teacher | None
    cost_kind: str
    latency: LatencyMeasurement | None
    seeds: tuple[int, ...]
    ledger: tuple[LedgerRow, ...]
    abnc: Abnc
    warnings: tuple[str, ...]


class Comparison(Bare):
    NAME = "comparison"

    value: list[Free]


# Pretraining


class Schedule(Record):
    """How many steps a pretraining takes and how the teacher is asked; seconds are those of an optimiser step."""

    NAME = "schedule"

    steps: int
    student_seconds: float
    teacher_seconds: float
    cached: bool
    maskings: int
    sentence: str


class TrainedParameters(Row):
    total: int
    encoder: int


class CurveRow(Row):
    step: int
    seconds: float
    loss: float
    learning_rate: float


class PretrainedLatency(Row):
    batch: int
    length: int
    threads: int
    runtime: str
    student: Timing
    teacher: Timing | None = None


class GoldScores(Row):
    """The official score of student and teacher against the labels of the held-out inputs."""

    metric: str
    inputs: int
    student: float
    teacher: float


class Pretraining(Record):
    """A finished pretraining. Rows of `heldout` have step, seconds, each loss by its name, and `loss`.

    `agreement`: by number of dimensions, the correlation with the teacher's cosines, where embeddings may be cut.
    """

    NAME = "pretraining"

    architecture: Shape
    parameters: TrainedParameters
    config: Free
    started: str
    losses: dict[str, float]
    schedule: Schedule
    steps: int
    seconds: float
    tokens: int
    max_length: int
    padding: float
    tokens_per_second: float
    curve: tuple[CurveRow, ...]
    heldout: tuple[dict[str, Number], ...]
    teacher: str | None
    teacher_architecture: Shape | None
    gold: GoldScores | None = None
    agreement: dict[str, float] | None = None
    latency: PretrainedLatency
    machine: Machine
    versions: Versions


# Fine-tuning


class ExampleStatistics(Row):
    """See `tasks.statistics`: of labels as classes or choices, of numbers, or of unlabelled examples."""

    rows: int
    groups: int
    mean: float | None = None
    deviation: float | None = None
    minimum: Number | None = None
    maximum: Number | None = None
    counts: dict[str, int] | None = None
    majority: str | None = None
    majority_share: float | None = None
    majority_balanced: float | None = None


class TaskData(Row):
    """The data of a fine-tuning, and how it was divided; `overlaps` counts examples of one part that are in another."""

    source: str
    division: str
    train: ExampleStatistics
    dev: ExampleStatistics
    heldout: ExampleStatistics
    truncated: float
    overlaps: dict[str, int] | None = None


class FitRow(Row):
    """A training of a fine-tuning. Rows of `history` have epoch, loss, and the scores on dev by name."""

    name: str
    learning_rate: float
    weight_decay: float
    warm_up: float
    batch_size: int
    epochs: int
    dropout: float
    seed: int
    dev: dict[str, float] | None
    epoch: int
    history: tuple[dict[str, Number], ...]
    steps: int
    examples_seen: int
    seconds: float


class HeldoutScores(Row):
    scores: dict[str, float]
    seeds: dict[str, dict[str, float]]
    fits: tuple[str, ...]
    mean: dict[str, float]
    deviation: dict[str, float | None]


class TaskTeacher(Row):
    model: str
    objection: str | None
    dev: dict[str, float]
    heldout: dict[str, float]


class FitCost(Row):
    trainings: int
    examples_seen: int
    seconds: float


class AgoraCost(Row):
    trainings: int
    points: int
    examples_seen: int
    training_seconds: float
    points_seconds: float
    labels_seconds: float


class AgoraForecast(Row):
    fewest: int
    most: int
    hours: tuple[float, float] | None


class AgoraSummary(Row):
    pruning: str
    iterations: int
    stopped: str
    points: int
    examples: int
    cost: AgoraCost
    forecast: AgoraForecast


class Metrics(Record):
    NAME = "metrics"

    task: str
    metric: str
    model: str
    data: TaskData
    fits: tuple[FitRow, ...]
    diverged: dict[str, str]
    best: str
    chosen: str
    heldout: HeldoutScores
    teacher: TaskTeacher | None
    cost: FitCost
    agora: AgoraSummary | None
    config: Free
    machine: Machine
    versions: Versions


class Heldout(Record):
    """Labels of the held-out examples (or words, where these are tagged), and what the models (by seed) predict."""

    NAME = "heldout"

    ids: tuple[str, ...]
    labels: tuple[Number, ...]
    seeds: dict[str, tuple[Number, ...]]


class AgoraTheta(Row):
    learning_rate: float
    weight_decay: float
    warm_up: float
    batch_size: int
    epochs: int
    dropout: float
    seed: int


class AgoraExamples(Row):
    rows: int
    hash: str


class AgoraTraining(Row):
    """A training of Agora; `theta` is a position in `thetas`."""

    theta: int
    model: str
    score: float | None
    scores: dict[str, float] | None
    epoch: int
    steps: int
    examples_seen: int
    seconds: float
    failure: str


class AgoraPruned(Row):
    theta: int
    reason: str


class AgoraExample(Row):
    id: str
    texts: tuple[str, ...]
    choices: tuple[str, ...]
    label: Number | None


class AgoraPoint(Row):
    origin: AgoraExample
    point: AgoraExample
    method: str
    similarity: float


class AgoraIteration(Row):
    """An iteration; what follows `sample` is there where points were made."""

    number: int
    examples: int
    trainings: tuple[AgoraTraining, ...]
    best: int
    mistakes: int
    points: int
    pruned: tuple[AgoraPruned, ...]
    sample: tuple[AgoraPoint, ...]
    methods: dict[str, int] | None = None
    labels: dict[str, int] | None = None
    dropped: dict[str, int] | None = None
    seconds: float | None = None
    labels_seconds: float | None = None


class AgoraBest(Row):
    model: str
    theta: int
    score: float


class Agora(Record):
    """How Agora made the training data grow."""

    NAME = "agora"

    task: str
    metric: str
    pruning: str
    thetas: tuple[AgoraTheta, ...]
    train: AgoraExamples
    dev: AgoraExamples
    about: Free
    warning: str
    objection: str | None
    iterations: tuple[AgoraIteration, ...]
    stopped: str
    best: AgoraBest
    cost: AgoraCost


# Evaluation


class Interval(Row):
    """A score: mean over seeds, bounds of its interval, one value per seed, and their standard deviation."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]
    deviation: float | None


class Scores(Row):
    metrics: dict[str, Interval]
    examples: int
    groups: int
    n_seeds: int
    level: float
    resamples: int
    seed: int
    method: str


class Difference(Row):
    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    p_examples: float
    p_seeds: float | None


class ScoreComparison(Row):
    metrics: dict[str, Difference]
    p_seeds_least: float | None
    examples: int
    groups: int
    n_seeds: int
    level: float
    resamples: int
    seed: int
    method: str


class PredictedStatistics(Row):
    counts: dict[str, int] | None = None
    mean: float | None = None
    deviation: float | None = None


class Confusion(Row):
    """How many examples of each class (rows) were taken for each (columns)."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class TypeScores(Row):
    """Scores of the spans of one type, and how many there are."""

    type: str
    f1: float
    precision: float
    recall: float
    spans: int


class Mistake(Row):
    """A wrong prediction; `confidence` is the softmax probability of the predicted answer."""

    id: str
    texts: tuple[str, ...]
    label: str | float
    prediction: str | float
    confidence: float | None


class Mistakes(Row):
    count: int
    rows: int
    shown: tuple[Mistake, ...]


class Evaluation(Row):
    task: str
    part: str
    source: str
    head: str
    primary: str
    statistics: ExampleStatistics
    predicted: PredictedStatistics
    scores: Scores | None
    comparison: ScoreComparison | None
    confusion: Confusion | None
    types: tuple[TypeScores, ...] | None = None
    mistakes: Mistakes | None
    warnings: tuple[str, ...]
    models: tuple[str, ...] | None = None
    against: tuple[str, ...] | None = None
    command: str | None = None
    versions: Versions | None = None
    machine: Machine | None = None


class Evaluations(Record):
    NAME = "report"

    version: int
    evaluations: tuple[Evaluation, ...]


class Ranked(Row):
    """How well a model ranks the documents of a collection.

    `max_length` is in tokens, None: whole texts. `prompts`: what an embedding model puts before a query and a document.
    """

    model: str
    kind: Literal["embedding", "reranker"]
    fingerprint: str
    max_length: int | None
    prompts: dict[str, str]
    scores: Scores


class Retrieval(Record):
    """An evaluation on a collection; `rerank` is how many documents a reranker gets from `retriever` for a query.

    `document_model`: what embedded the documents, where that was not the model itself.
    `comparison` is with `against`, or of a reranker without that, with the retriever's own order.
    """

    NAME = "retrieval"

    collection: str
    part: str
    source: str
    documents: int
    queries: int
    model: Ranked
    against: Ranked | None
    document_model: str | None = None
    retriever: Ranked | None
    rerank: int | None
    comparison: ScoreComparison | None
    warnings: tuple[str, ...]
    seconds: float
    command: str
    versions: Versions
    machine: Machine


# Export and benchmark


class Likeness(Row):
    """How alike PyTorch's and the exported file's outputs are, see `export.parity`.

    `agreement` is None for outputs without a most likely answer.
    """

    difference: float
    share_of_limit: float
    worst_cosine: float
    mean_cosine: float
    agreement: float | None


class MetricDrop(Row):
    """Scores of PyTorch and of the exported file on held-out examples; `unknown` is why there are none."""

    name: str
    unknown: str | None = None
    examples: int | None = None
    metric: str | None = None
    pytorch: float | None = None
    exported: float | None = None
    drop: float | None = None


class TextSource(Row):
    source: str
    content_hash: str | None = None


class Parity(Record):
    """An export: its files, what was compared with PyTorch and how.

    `reduced_range`: int8 weights have 7 bits, for x86 without VNNI. `folder`: where it was written (not stored).
    """

    NAME = "parity"

    version: int
    model: str
    fingerprint: str
    head: Literal["encoder", "sentence", "masked-lm", "classification", "tagging", "choice"]
    variant: str
    runtime: Literal["onnx", "openvino"]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_length: int
    pad_token_id: int
    prefix: str
    files: dict[str, FileSeal]
    calibrated_on: int | None
    reduced_range: bool = False
    likeness: dict[str, Likeness]
    limits: dict[str, Number]
    task: MetricDrop | None
    batches: tuple[tuple[int, ...], ...]
    sequences: int
    tokens: int
    text: TextSource
    config: Free
    seconds: float
    versions: Versions
    machine: Machine
    folder: str | None = None


class BenchSubject(Row):
    name: str
    kind: Literal["model", "shape", "export"]
    head: str
    architecture: Shape
    parameters: int


class BenchRow(Row):
    """A model in a runtime at a batch size and a length, or over several lengths; milliseconds of a forward pass."""

    subject: str
    architecture: Shape
    runtime: str
    batch: int
    lengths: tuple[int, ...]
    median_ms: float
    q1_ms: float
    q3_ms: float
    p95_ms: float
    passes: int
    sentences_per_second: float
    gflops: float
    share_of_peak: float
    peak_bytes: int | None
    load_seconds: float
    file_bytes: int


class Bench(Record):
    """A benchmark; `peak_gflops` is the speed of matrix products by as many processes and threads."""

    NAME = "bench"

    version: int
    begun: str
    seconds: float
    load_average: float | None
    threads: int
    processes: int
    peak_gflops: float
    subjects: tuple[BenchSubject, ...]
    rows: tuple[BenchRow, ...]
    config: Free
    versions: Versions
    machine: Machine
    command: str | None = None


# Compression


class ServedFile(Row):
    """A model in a runtime on so many threads: a forward pass at batch 1.

    `fidelity`: 1 less the error of this very file, as a search measures it; 1 is the teacher, 0 a constant. `folder` is
    below the run folder; None for the teacher's own.
    """

    runtime: str
    threads: int
    median_ms: float
    q1_ms: float
    q3_ms: float
    bytes: int
    fidelity: float | None
    folder: str | None


class Serving(Record):
    """A model (its fingerprint) in every installed runtime, on one thread and on all, at `length` tokens.

    `refused` says by runtime why there is no file.
    """

    NAME = "serving"

    fingerprint: str
    length: int
    files: tuple[ServedFile, ...]
    refused: dict[str, str]
    seconds: float

    def best(self, int8: bool | None = None) -> ServedFile:
        """The fastest by the median: of all, or of the files in int8, or of the others."""
        return min(self.of(int8), key=lambda file: file.median_ms)

    def of(self, int8: bool | None) -> list[ServedFile]:
        """The files in int8, or the others, or all."""
        return [file for file in self.files if int8 is None or ("int8" in file.runtime) is int8]

    def same(self, other: ServedFile) -> ServedFile | None:
        """The file in the runtime and on the threads of another; None: there is none."""
        conditions = other.runtime, other.threads
        return next((file for file in self.files if (file.runtime, file.threads) == conditions), None)


class TaskScores(Row):
    """Scores on the held-out part of a task."""

    task: str
    metric: str
    examples: int
    ours: float
    theirs: float


class Compressed(Record):
    """What `compress` came to. Without an `architecture` no candidate meets the limits, and `nearest` names one.

    `serving` is None where there is no student, `teacher_serving` where the teacher cannot be exported; `teacher_ms` is
    in the `runtime` of the search. `asked`: of the limits. `certified`: whether the search was finished; `certificate`:
    what it proved, in a sentence. `seconds` by stage.
    """

    NAME = "compressed"

    architecture: Shape | None
    parameters: int | None
    model: str | None
    head: str | None
    teacher: str
    teacher_architecture: Shape | None
    teacher_parameters: int | None
    teacher_ms: float | None
    runtime: str | None
    asked: dict[str, Number | str]
    error: float | None
    scores: TaskScores | None
    certified: bool
    certificate: str
    nearest: str | None
    serving: Serving | None
    teacher_serving: Serving | None
    seconds: dict[str, float]
    machine: Machine
    versions: Versions
    lines: tuple[str, ...] = ()
