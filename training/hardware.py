"""What a device is good at."""

from __future__ import annotations

import torch


def computes_in_bfloat16(device: torch.device | str) -> bool:
    """Whether products in bfloat16 are faster there than in float32; elsewhere they are emulated, ten times slower."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return False
