"""A whole run on tiny random models comes out as it was recorded, to the bit: what a refactoring must not change.

The program is driven by its command line alone, and its results are read from the files of the run folder, so nothing
here depends on how the package is laid out.

    python tests/test_golden.py --record        # the record of this environment: only where results shall change

Floats are written by repr, which is exact. Bits depend on processor and versions, so golden.json holds a record for
each environment that it was made in. In such an environment everything must be equal. Anywhere else floats must agree
within TOLERANCE with the first record, names and counts must be equal, hashes and what int8 comes to are left out, and
the test then counts as skipped and says so. No part of the record: what a clock
measured, versions, paths, identities, prose.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from safetensors.torch import load_file

import subarch.pipeline  # noqa: F401  # before it forks: once for all commands
from forked import fork
from golden_material import make
from subarch.cli.app import main

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-3
"""Relative difference of a float that is allowed in another environment; absolute, a thousandth of it."""

FLAGS = ("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimddp", "i8mm", "sve")
FIXED = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

EXTRACT = (
    "--teacher teacher --corpus corpus.txt --space space.yaml --strategy certified --delta 0.05 --audit 3 --repeats 3 "
    "--max-parameters 16000 --cost operations --steps 6 --learning-rate 2e-3 --learning-rate 8e-3 --batch-size 16 "
    "--max-length 16 --heldout 32 --workers 1 --threads-per-worker 1"
)
PRETRAIN = "--steps 6 --max-length 32 --batch-tokens 512 --learning-rate 5e-3 --evaluations 2 --heldout 8 --threads 1"
FINETUNE = (
    "--task topics --data data --first text --label topic --dropout 0.1 --batch-size 8 --max-length 16 --threads 1 "
    "--seeds 0 --seeds 1"
)
# In order: each reads what those before it have left
COMMANDS = {
    "extract": f"extract --run run {EXTRACT}",
    "verify": "verify run",
    "select": "select run --objective w --cost operations",
    # the selected architecture from the search's weights; another one from the teacher's
    "pretrain": f"pretrain run {PRETRAIN} --targets cache --loss-embedding 1 --loss-hidden 0.5 --loss-relations 1",
    "pretrain masked": f"pretrain masked --teacher teacher --corpus corpus.txt --architecture 1-4-24-32 {PRETRAIN} "
    "--targets live --loss-mlm 0.1 --loss-logits 0.5",
    "finetune": f"finetune run {FINETUNE} --learning-rate 5e-3 --learning-rate 1e-2 --epochs 6",
    "agora": f"finetune teacher --run agora {FINETUNE} --learning-rate 5e-4 --learning-rate 2e-3 --epochs 1 "
    "--agora common --points 2 --teacher run/finetuned/topics --masked-lm teacher --neighbours corpus.txt",
    "evaluate": "evaluate run/finetuned/topics --part held-out --against agora/finetuned/topics",
    "export": "export run --runtime onnx",
    "export int8": "export run --runtime onnx --quantize int8 --min-cosine 0.5",
}


@pytest.mark.slow
def test_a_run_is_as_it_was_recorded(tmp_path: Path) -> None:
    records, here = recordings(), environment()
    golden = next((one for one in records if one["environment"] == here), records[0])
    before = golden["environment"]
    same = here == before
    how = "to the bit" if same else f"within {TOLERANCE:g}, hashes and int8 left out: recorded on {before}, not {here}"
    found = list(differences(golden["record"], run(tmp_path), 0.0 if same else TOLERANCE))
    assert not found, f"not as recorded ({how}):\n" + "\n".join(found)
    if not same:
        pytest.skip(f"as recorded {how}")


def test_one_float_that_differs_in_the_last_bit_is_found() -> None:
    golden, changed = (recordings()[0]["record"] for _ in range(2))
    assert list(differences(golden, changed, 0.0)) == []
    floats = [(at, value) for at, value in leaves(changed) if isinstance(value, float)]
    assert len(floats) > 500
    for (holder, key), value in floats:
        holder[key] = math.nextafter(value, math.inf)
        (found,) = differences(golden, changed, 0.0)
        assert f"{value!r} was recorded, {holder[key]!r} is found" in found
        holder[key] = value


def recordings() -> list[dict[str, Any]]:
    """An `environment` and the `record` made in it, for each environment."""
    found: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return found


def run(place: Path) -> dict[str, Any]:
    """Run all commands in an empty folder, and return what is recorded of them."""
    make(place)
    record = {}
    for name, words in COMMANDS.items():
        said = place / "said"
        code = command(words, place, said)
        text = said.read_text(encoding="utf-8")
        assert code == 0, f"subarch {words}: exit {code}: {text[-2000:]}"
        record[name] = recorded(name, place, text)
    return record


def command(words: str, place: Path, said: Path) -> int:
    """The exit code of a command in the folder `place`, in a forked process; what it says is written to `said`."""

    def work() -> None:
        os.chdir(place)
        sys.argv = ["subarch", *words.split()]
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", encoding="utf-8")
        main()

    return fork(work, **FIXED, SUBARCH_CACHE=str(place / "cache"))[0]


def recorded(name: str, place: Path, said: str) -> dict[str, Any]:
    """What is kept of a command: from the files that it left, and of `verify` the names that it said."""
    run = place / "run"
    if name == "verify":
        return {"names": sorted(set(re.findall(r"\b\d+-\d+-\d+-\d+\b", said)))}
    if name in ("extract", "select"):
        return selection(run) | (trials(run / "study.db") if name == "extract" else {})
    if name.startswith("pretrain"):
        folder = run if name == "pretrain" else place / "masked"
        names = ("architecture", "parameters", "losses", "steps", "tokens", "padding", "curve", "heldout")
        return read(folder / "pretraining.json", *names) | {"weights": tensors(folder / "pretrained")}
    folder = (run if name != "agora" else place / "agora") / "finetuned" / "topics"
    if name in ("finetune", "agora"):
        names = ("data", "fits", "diverged", "best", "chosen", "heldout", "teacher", "cost")
        found = read(folder / "metrics.json", *names) | read(folder / "heldout.json", "ids", "labels", "seeds")
        if name == "agora":
            found["diary"] = read(folder / "agora.json", "thetas", "iterations", "best", "cost")
        return found | {"weights": tensors(folder)}
    if name == "evaluate":
        (found,) = read(folder / "report.json", "evaluations")["evaluations"]
        kept = {key: found[key]["metrics"] for key in ("scores", "comparison")}
        kept |= {key: found[key] for key in ("predicted", "confusion", "mistakes")}
        lines = (folder / "predictions-topics-held-out.jsonl").read_text(encoding="utf-8").splitlines()
        return kept | {"predictions": [json.loads(line) for line in lines]}
    (file,) = (run / "exported" / ("onnx-int8" if name == "export int8" else "onnx")).rglob("model.onnx")
    names = ("head", "inputs", "outputs", "calibrated_on", "likeness", "sequences", "tokens")
    return read(file.with_name("parity.json"), *names) | {"file": sha256(file.read_bytes())}


def selection(run: Path) -> dict[str, Any]:
    """What was selected, and from what; of the certificate all but its prose."""
    names = ("objective", "outcome", "ties", "frontier", "maximum_point", "seeds", "winner", "candidates")
    kept = read(run / "selection.json", *names, "certificate", "abnc")
    row = ("architecture", "parameters", "encoder_parameters", "operations", "error", "hyperparameters", "w")
    kept["candidates"] = [{name: one[name] for name in row} for one in kept["candidates"]]
    kept["winner"] = {name: kept["winner"][name] for name in row}
    kept["certificate"].pop("heads", None)  # to be given up
    conditions = kept.pop("abnc")
    kept["conditions"] = {one["name"]: [one["holds"], one["value"]] for one in conditions["conditions"]}
    kept["rank_agreement"] = conditions["rank_agreement"]
    return kept | {"weights": tensors(run / "selected")}


def trials(database: Path) -> dict[str, list[Any]]:
    """All trials of a study, and in which order candidates were asked for.

    Of trainings that were submitted together (the first three candidates, the second seeds at the end, all of one
    candidate) it is chance which is stored first; so trials are sorted, and the order is that after the first three.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = [
        {"architecture": one.user_attrs["architecture"], "settings": settings_of(one.params), "state": one.state.name}
        | {"error": one.value, "curve": [point[:2] for point in one.user_attrs["curve"]]}
        for one in optuna.load_study(study_name=None, storage=f"sqlite:///{database}").trials
    ]
    order = dict.fromkeys(one["architecture"] for one in found if not one["settings"]["seed"])
    found.sort(key=lambda one: (one["architecture"], *(one["settings"][name] for name in ("learning_rate", "seed"))))
    return {"order": list(order)[3:], "trials": found}


def settings_of(params: dict[str, Any]) -> dict[str, Any]:
    """Without the vocabulary, which is the whole one here."""
    assert params["vocabulary"] == 0
    return {name: value for name, value in params.items() if name != "vocabulary"}


def read(file: Path, *names: str) -> dict[str, Any]:
    """These keys of a JSON file, without times, paths and prose wherever they are in it."""
    left_out = {"seconds", "training_seconds", "points_seconds", "labels_seconds", "source", "overlaps"}
    left_out |= {"sentence", "reason", "failure", "objection", "division"}
    kept = json.loads(
        file.read_text(encoding="utf-8"),
        object_hook=lambda item: {key: value for key, value in item.items() if key not in left_out},
    )
    return {name: kept[name] for name in names}


def tensors(folder: Path) -> dict[str, str]:
    """A hash of each tensor's type, shape and bytes, of a model's folder and the modules in it."""
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for name, tensor in sorted(load_file(file).items()):
            about = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
            found[str(file.relative_to(folder).parent / name)] = sha256(about + tensor.numpy().tobytes())
    return found


def sha256(data: bytes) -> str:
    """Half of the hash, which is enough to tell by whether something changed."""
    return hashlib.sha256(data).hexdigest()[:32]


def differences(golden: Any, found: Any, tolerance: float, path: str = "record") -> Iterator[str]:
    """Where two records differ; with a tolerance, leaving out what is compared to the bit or not at all."""
    if isinstance(golden, dict) and isinstance(found, dict):
        if odd := sorted(golden.keys() ^ found.keys()):
            yield f"{path}: only one of the two has {', '.join(odd)}"
        for key in (key for key in golden if key in found):
            if not (tolerance and key in ("weights", "file", "likeness")):
                yield from differences(golden[key], found[key], tolerance, f"{path}.{key}")
    elif isinstance(golden, list) and isinstance(found, list) and len(golden) == len(found):
        for at, (one, other) in enumerate(zip(golden, found, strict=True)):
            yield from differences(one, other, tolerance, f"{path}[{at}]")
    elif type(golden) is not type(found) or golden != found:
        floats = isinstance(golden, float) and isinstance(found, float)
        if not (floats and math.isclose(golden, found, rel_tol=tolerance, abs_tol=tolerance / 1000)):
            yield f"{path}: {golden!r} was recorded, {found!r} is found"


def leaves(value: Any) -> Iterator[tuple[tuple[Any, Any], Any]]:
    """Every number and name of a record, and before it what holds it under which key."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(one) if isinstance(one, dict | list) else [((value, key), one)]


def environment() -> dict[str, Any]:
    """What bits depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", told.get("Features", "")).split()
    return {
        "processor": told.get("model name", platform.processor()),
        "family and model": [told.get("cpu family"), told.get("model")],
        "flags": [flag for flag in FLAGS if flag in flags],
        "capability": torch.backends.cpu.get_cpu_capability(),
        **{name: version(name) for name in ("torch", "transformers", "numpy", "onnxruntime")},
    }


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        sys.exit("python tests/test_golden.py --record writes golden.json; to compare with it, run pytest")
    with tempfile.TemporaryDirectory() as made:
        own = {"environment": environment(), "record": run(Path(made))}
    written = [one for one in recordings() if one["environment"] != own["environment"]] + [own]
    # What holds nothing but numbers and names goes on a line
    text = re.sub(r"[\[{][^][{}]*[]}]", lambda found: " ".join(found[0].split()), json.dumps(written, indent=1))
    GOLDEN.write_text(text + "\n", encoding="utf-8")
    print(f"{GOLDEN.name}: {sum(1 for _ in leaves(written))} values")
