"""Which processors get products as convolutions."""

import pytest
import torch

from video_mvit.kernels.cpu_linear import mkl_lacks_avx512


def test_only_amd_processors_with_avx512_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)

    def facts(name: str, *, has_avx512: bool) -> bool:
        capabilities = {"cpu_name": name, "avx512_f": has_avx512}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        return mkl_lacks_avx512()

    assert facts("AMD EPYC 9V74", has_avx512=True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not facts("AMD EPYC 9V74", has_avx512=True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert not facts("AMD EPYC 7763", has_avx512=False)
    assert not facts("Intel(R) Xeon(R) Platinum 8480C", has_avx512=True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    assert not mkl_lacks_avx512()
