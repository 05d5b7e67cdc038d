"""Precision and determinism of torch on a GPU."""

from __future__ import annotations

from typing import Any

import torch


def configure_torch_backends(allow_tf32: bool = True, deterministic: bool = False) -> None:
    """Choose between speed and exactness of torch on CUDA devices.

    Args:
        allow_tf32: Multiply float32 matrices with 10 bits of mantissa, which is faster on GPUs
            since Ampere.
        deterministic: Let cuDNN choose algorithms that repeat exactly, instead of the fastest.
    """
    precision = "tf32" if allow_tf32 else "ieee"
    backend: Any
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        # The newer setting refuses to be mixed with the older one, which torch < 2.9 has only.
        if hasattr(backend, "fp32_precision"):
            backend.fp32_precision = precision
        else:
            backend.allow_tf32 = allow_tf32
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
