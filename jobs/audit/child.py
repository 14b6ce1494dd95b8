"""Decoding in a process that can be killed: for shards whose first attempt ended its worker."""

from __future__ import annotations

import multiprocessing
import resource
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import psutil

from anomaly_core.preprocess import Decoded, ImageError
from jobs.audit.orphans import end_with_parent

# Beside what the process maps before the first image: torch alone maps 3 GiB, and uses little of it.
MEMORY_BYTES = 4 * 2**30


class DecodingChild:
    """A child process that decodes one image after the other, and is started again after an image that kills it.

    decoder: from the bytes of a file to the image; it must be importable by name, for another process.
    """

    def __init__(self, decoder: Callable[[bytes], Decoded]):
        self._decoder = decoder
        self._process: Any = None
        self._pipe: Connection | None = None

    def decode(self, data: bytes, timeout: float) -> Decoded:
        """Decode within ``timeout`` seconds and a memory cap.

        Raises ImageError: of the decoder itself, or ``decoder_died``, ``decode_timeout``.
        """
        pipe = self._start()
        try:
            pipe.send_bytes(data)
        except OSError:  # it was killed since the last image, which is not this one's fault
            self.close()
            pipe = self._start()
            pipe.send_bytes(data)
        if not pipe.poll(timeout):
            self.close()
            raise ImageError("decode_timeout", f"not decoded within {timeout:g} s")
        try:
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            code = self._end()
            raise ImageError("decoder_died", f"decoding this image ended its process (exit status {code})") from error
        if isinstance(answer, ImageError):
            raise answer
        assert isinstance(answer, Decoded)
        return answer

    def close(self) -> None:
        """Kill the child; the next image starts another."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _start(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, far = context.Pipe()
            self._process = context.Process(target=_serve, args=(far, self._decoder), daemon=True)
            self._process.start()
            far.close()
            # Importing the decoder takes seconds and is not the image's fault, so it comes before the clock starts.
            assert self._pipe.recv() == "ready"
        return self._pipe

    def _end(self) -> int | None:
        self._process.join()
        code: int | None = self._process.exitcode
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        return code


def _serve(pipe: Connection, decoder: Callable[[bytes], Decoded]) -> None:
    end_with_parent()  # a decoder that hangs would not see that the pipe was closed
    cap = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    pipe.send("ready")
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        try:
            pipe.send(decoder(data))
        except ImageError as error:
            pipe.send(error)
        except MemoryError:
            pipe.send(ImageError("corrupt_image", f"decoding needs more than {MEMORY_BYTES:,} bytes of memory"))
        except Exception as error:  # a bug in a decoder, which is told with the row that it costs
            traceback.print_exc()
            pipe.send(ImageError("decoder_died", f"the decoder failed: {type(error).__name__}: {error}"[:300]))
