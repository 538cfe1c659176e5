"""A student's weights on disk: written whole or not at all, read into a student of the same architecture."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from subarch.errors import InvalidStudy
from subarch.models.student import Student
from subarch.models.tensors import save_tensors


def save_weights(student: Student, path: Path) -> None:
    """Write a student's weights atomically; tied tensors are stored once."""
    save_tensors(dict(student.named_parameters()), path)


def load_weights(student: Student, path: Path) -> Student:
    """Read what `save_weights` wrote into a student of the same architecture.

    Raises:
        InvalidStudy: a missing or damaged file, or the weights of another architecture (other heads have the same
            weights, so they are not told apart).
    """
    try:
        missing, unexpected = student.load_state_dict(load_file(path), strict=False)
    except (OSError, SafetensorError) as error:
        raise InvalidStudy(f"{path}: cannot be read ({error}); delete the file to train it again") from error
    except RuntimeError:  # tensors of other shapes
        fits = False
    else:
        fits = not unexpected and set(missing) <= student.tied_names
    if not fits:
        raise InvalidStudy(f"{path}: its weights are of another architecture; delete the file to train it again")
    return student
