"""Float32 matrix products on a CPU by oneDNN instead of MKL, where that keeps the precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

# In a network of three or four layers with fewer multiplications than this, the time to start a
# product decides, and MKL starts faster: 3 us instead of 13 us each.
WORTHWHILE = 5_000_000

# A product of float32 that was rounded to bfloat16 first is off by 1e-3.
_FLOAT32_ERROR = 1e-5


@contextmanager
def fast_float32(multiplications: int) -> Iterator[None]:
    """Let oneDNN compute the matrix products inside, if they are large and keep float32 precision.

    On AMD CPUs MKL does without AVX-512, and oneDNN is twice as fast. Torch gives float32 products
    to oneDNN only when it may round them to bfloat16, which oneDNN does only on CPUs that have
    instructions for it (AMX). On those, nothing is changed.

    Args:
        multiplications: Scalar multiplications in a forward pass of the network inside.
    """
    if multiplications < WORTHWHILE or not keeps_float32():
        yield
        return
    backend: Any = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


@cache
def keeps_float32() -> bool:
    """Whether oneDNN keeps the precision of float32 on this CPU when it may round to bfloat16."""
    backend: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if backend is None or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(backend, "fp32_precision"):  # torch < 2.9
        return False
    generator = torch.Generator().manual_seed(0)
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        return all(_is_exact(rows, generator) for rows in (64, 512))
    finally:
        backend.fp32_precision = before


def _is_exact(rows: int, generator: torch.Generator) -> bool:
    """Compare the products of a layer's forward and backward pass with those in float64."""
    x = torch.rand(rows, 256, generator=generator)
    weight = torch.rand(128, 256, generator=generator)
    gradient = torch.rand(rows, 128, generator=generator)
    pairs = ((x, weight.t()), (gradient, weight), (gradient.t(), x))
    return all(
        torch.allclose((a @ b).double(), a.double() @ b.double(), rtol=_FLOAT32_ERROR, atol=0.0)
        for a, b in pairs
    )
