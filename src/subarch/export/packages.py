"""The optional packages behind exports: asked for in words, and kept from telling anybody that they are used.

Importing OpenVINO or nncf sends a message to their makers unless the user has forbidden it. Nothing else here uses a
network without being asked to, so both are imported in this module, with that part of them switched off.

    >>> require("onnx")
    >>> openvino().Core()
"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from typing import Any

from subarch.errors import MissingExtra
from subarch.run.machine import extras


def require(extra: str) -> None:
    """Make sure that the packages of an extra are installed.

    Raises:
        MissingExtra: some are not; the message names them and the command that installs them.
    """
    found = extras()[extra]
    if found["missing"]:
        raise MissingExtra(
            f"{extra}: needs packages that are not installed: {', '.join(found['missing'])}; install the extra "
            f"subarch[{extra}], or: {found['command']}"
        )


def openvino() -> Any:
    """The module `openvino`."""
    _forbid_telemetry()
    import openvino as module

    return module


def nncf() -> Any:
    """The module `nncf`, which then logs errors only."""
    _forbid_telemetry()
    with redirect_stdout(io.StringIO()):  # its logger is bound to what standard output is when it is imported
        import nncf as module
    module.set_log_level(40)
    return module


def _forbid_telemetry() -> None:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # both do without what is missing
