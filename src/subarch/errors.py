"""The exceptions a user of `subarch` can catch. Each message says what was wrong, where, and what to do.

SubarchError                anything this package refuses
├── InvalidArchitecture     a shape no encoder can have (H not divisible by A, a negative depth, ...)
├── InvalidSpace            a search space that is empty or malformed
├── InvalidConfig           an unknown key or an impossible value in a configuration
├── InvalidCorpus           text that cannot be used: missing, binary, too small
├── InvalidVocabulary       a tokenizer that cannot be cut, or not to this size
├── InvalidTeacher          a teacher folder that is missing, truncated or unsafe to load
│   └── NotInheritable      a teacher folder that is in order, but that no student can follow
├── InvalidTask             a task that is not known, or data of a task that is missing or malformed
├── InvalidStudy            a run folder or study that is corrupt, locked or of another version
├── InvalidExport           an exported file that is missing, was changed, or computes something else than its model
├── EndpointFailed          a server that refuses, is not well for long, or gives what cannot be right
├── UnsteadyClock           a clock that stood still or was set back while something was timed
├── MissingExtra            an optional package that is not installed
└── TrainingDiverged        the loss of a trial became NaN or infinite
"""

from __future__ import annotations

import reprlib
from typing import Any


class SubarchError(Exception):
    """Base of every error raised on purpose."""


class InvalidArchitecture(SubarchError, ValueError):
    """A ⟨D, A, H, I⟩ that no BERT-like encoder can have."""


class InvalidSpace(SubarchError, ValueError):
    """A search space that is empty or malformed."""


class InvalidConfig(SubarchError, ValueError):
    """A configuration with an unknown key or an impossible value."""


class InvalidCorpus(SubarchError, ValueError):
    """Text that cannot be used: missing, binary, not UTF-8, or too small."""


class InvalidVocabulary(SubarchError, ValueError):
    """A tokenizer that cannot be cut, or not to the size that is asked for."""


class InvalidTeacher(SubarchError, ValueError):
    """A teacher folder that is missing, truncated or unsafe to load."""


class NotInheritable(InvalidTeacher):
    """A teacher folder that is in order, but of a family or with a setting that no student here can have."""


class InvalidTask(SubarchError, ValueError):
    """A task that is not known, or data of a task that is missing, malformed or without what is asked of it."""


class InvalidStudy(SubarchError, ValueError):
    """A run folder or study that is corrupt, in use, or written by another version."""


class InvalidExport(SubarchError, ValueError):
    """An exported file that cannot be made, is missing, was changed, or does not compute what its model does."""


class EndpointFailed(SubarchError, RuntimeError):
    """A server that refuses a request, is not well for long, gives what cannot be right, or changed its model."""


class UnsteadyClock(SubarchError, RuntimeError):
    """A clock that stood still or was set back while something was timed."""


class MissingExtra(SubarchError, ImportError):
    """What is asked for needs optional packages that are not installed; the message has the command that does it."""


class TrainingDiverged(SubarchError, ArithmeticError):
    """The loss of a trial became NaN or infinite."""


def show(value: Any) -> str:
    """Short text of a refused value, whatever its size, depth or number of digits, for a message."""
    return _SHORT.repr(value)


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print a number of more than 4300 digits
        return repr(x) if x.bit_length() <= 128 else f"<a number of {x.bit_length()} bits>"


_SHORT = _Short()
