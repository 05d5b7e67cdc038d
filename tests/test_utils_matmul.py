"""Faster matrix products that keep the precision of float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mjlab_rec.utils import matmul

BACKEND: Any = getattr(torch.backends.mkldnn, "matmul", None)


def test_products_keep_the_precision_of_float32():
    a, b = torch.rand(512, 256), torch.rand(256, 256)
    with matmul.fast_float32(matmul.WORTHWHILE):
        error = ((a @ b).double() - a.double() @ b.double()).abs().max()
    assert error < 1e-3  # Rounded to bfloat16, it is 0.05.


@pytest.mark.skipif(not hasattr(BACKEND, "fp32_precision"), reason="torch < 2.9")
def test_the_setting_changes_only_inside_and_only_where_it_helps(monkeypatch):
    before = BACKEND.fp32_precision
    for keeps, multiplications, expected in (
        (True, matmul.WORTHWHILE, "bf16"),
        (False, matmul.WORTHWHILE, before),
        (True, matmul.WORTHWHILE - 1, before),
    ):
        monkeypatch.setattr(matmul, "keeps_float32", lambda keeps=keeps: keeps)
        with matmul.fast_float32(multiplications):
            assert BACKEND.fp32_precision == expected
        assert BACKEND.fp32_precision == before


def test_products_that_are_rounded_to_bfloat16_are_noticed(monkeypatch):
    exact = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.dtype == torch.float64:
            return exact(a, b)
        return exact(a.bfloat16(), b.bfloat16()).float()

    assert matmul._is_exact(64, torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not matmul._is_exact(64, torch.Generator().manual_seed(0))
