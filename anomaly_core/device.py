"""Which device and which precision the models run in."""

from __future__ import annotations

import torch

from anomaly_core.forms import Precision

# Images that go through router and backbone at once. On CPUs so few that what a layer leaves stays in the cache (one
# core with AMX, bfloat16: 12.2 ms an image with 4, 15.4 with 1, and more with 16); a GPU wants more.
MICRO_BATCH = {"cpu": 4, "cuda": 32}

# Images that go through an autoencoder at once, always so many: how a matrix product is summed depends on its size, and
# scores would depend in the fifth digit on what else came with an image. (On a CPU, 4 at once would be 4 % faster.)
SCORED_AT_ONCE = {"cpu": 1, "cuda": 8}

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(choice: str = "auto") -> str:
    """``auto``, ``cpu`` or ``cuda`` to the device to use. Raises ValueError if cuda is asked for and is not there."""
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device on this machine; use --device cpu or auto")
    if choice not in ("cpu", "cuda"):
        raise ValueError(f"--device {choice}: must be auto, cpu or cuda")
    return choice


def resolve_precision(choice: str, device: str) -> Precision:
    """``auto``, ``float32`` or ``bfloat16`` to the precision to use.

    ``auto`` is bfloat16 where the hardware multiplies it faster than float32 (a GPU, or a CPU with AMX tiles or
    AVX512-BF16), else float32. Raises ValueError for any other word.
    """
    if choice == "float32":
        return "float32"
    if choice == "bfloat16":
        return "bfloat16"
    if choice != "auto":
        raise ValueError(f"--precision {choice}: must be auto, float32 or bfloat16")
    return "bfloat16" if device == "cuda" or _multiplies_bfloat16() else "float32"


def full_float32() -> None:
    """Keep float32 what it says: no TF32 in matrix products and convolutions on a GPU (it moves scores by 1e-3)."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _multiplies_bfloat16() -> bool:
    # The queries are not public API and are absent from some builds: without them the answer is the safe one, float32.
    # (All stages of an audit on two cores of an EPYC of 2023, which has no AMX: 22 images/s, in float32 12.)
    queries = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(query() for query in queries if query is not None)
