"""What one image costs: decoded in a killable child, as by the job's careful attempt; time and memory are measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import psutil
from PIL import Image

from anomaly_core.preprocess import Decoded, ImageError, Limits, decode
from jobs.audit.child import DecodingChild
from tests.anomaly_core.files import encode

# What the decoder may say; beside these, an image may only take too long or end its process, and both are counted.
TYPED = frozenset(ImageError.CODES) - {"decode_timeout", "decoder_died"}
CRASHES = frozenset({"decode_timeout", "decoder_died"})


@dataclass(frozen=True)
class Cost:
    """How an image ended ("decoded", or the code of its error), what was said, seconds by the clock and of CPU, and
    bytes of memory at the highest, above what the process held before. Of an image that ended its process, the CPU and
    memory are not known: its seconds stand for the CPU."""

    code: str
    message: str
    seconds: float
    cpu: float
    memory: int


class Scale:
    """Weighs images, one after the other, in one child process; another one after a crash."""

    def __init__(self, timeout: float, limits: Limits | None = None):
        self.timeout = timeout
        self._child = DecodingChild(partial(decode, limits=limits or Limits()))

    def __enter__(self) -> Scale:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._child.close()

    def weigh(self, data: bytes) -> Cost:
        """Decode one file; whatever comes back must be a picture of the right form, or a typed error."""
        if self._child._process is None:  # started now, so that its start is not counted
            self._child.decode(_SMALL, 60.0)
        process = psutil.Process(self._child._process.pid)
        folder = Path(f"/proc/{process.pid}")
        (folder / "clear_refs").write_text("5")  # the highest mark begins anew
        before = _kilobytes(folder, "VmRSS")
        begin, spent = time.monotonic(), sum(process.cpu_times()[:2])
        try:
            found = self._child.decode(data, self.timeout)
        except ImageError as error:
            code, message = error.code, error.message
        else:
            code, message = "decoded", _form(found)
        seconds = time.monotonic() - begin
        if self._child._process is None:
            return Cost(code, message, seconds, seconds, 0)
        cpu, memory = sum(process.cpu_times()[:2]) - spent, _kilobytes(folder, "VmHWM") - before
        return Cost(code, message, seconds, cpu, 1024 * memory)


_SMALL = encode(Image.fromarray(np.zeros((4, 4, 3), np.uint8)), "PNG")


def _form(found: Decoded) -> str:
    assert found.pixels.shape == (224, 224, 3) and found.pixels.dtype == np.uint8
    assert found.width >= 1 and found.height >= 1
    return f"{found.width} x {found.height}"


def _kilobytes(folder: Path, field: str) -> int:
    for line in (folder / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(f"no {field}: this needs Linux")
