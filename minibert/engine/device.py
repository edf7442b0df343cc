"""What is fastest on each device, and the check that a forked process can compute."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import Self

from minibert.attention import Packed
from minibert.config import BertConfig
from minibert.engine.packing import Views

# The widest hidden state of a pass, (T, I), in bytes for each thread: more does not fit the caches, less does not pay
# for the work around the products. That is 4,096 tokens of MiniLM or 2,048 of bert-base on two threads in bfloat16.
BYTES_PER_THREAD = 6 * 2**20
TOKENS_ON_A_GPU = 16_384
# The values of ONEDNN_MAX_CPU_ISA under which oneDNN emulates products of bfloat16.
ISAS_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


@dataclass(frozen=True)
class Device:
    """How passes are made for a device. All differences between CPU and GPU are decided here.

    Attributes:
        tokens: how many to compute at once: what fits the caches of a CPU, or keeps a GPU busy.
        layout: the layout of the packed texts.
        fills_up: whether passes are filled up to one of a few sizes, since oneDNN builds kernels for each size.
    """

    tokens: int
    layout: type[Packed]
    fills_up: bool

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype, config: BertConfig) -> Self:
        """The settings for a device and a model."""
        if device.type != "cpu":
            return cls(TOKENS_ON_A_GPU, Packed, False)
        tokens = BYTES_PER_THREAD * torch.get_num_threads() // (config.intermediate_size * dtype.itemsize)
        return cls(max(512, tokens), Views, True)


def fastest_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """The fastest dtype of a device without a notable loss of precision, and the reason.

    Where bfloat16 is emulated, it is slower than float32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            if torch.cuda.is_bf16_supported(including_emulation=False):
                return torch.bfloat16, "this GPU computes in it"
    if device.type == "cpu":
        if not torch.backends.mkldnn.enabled:
            return torch.float32, "oneDNN, which would multiply bfloat16, is off"
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
        if limit.upper() in ISAS_WITHOUT_BFLOAT16:
            return torch.float32, f"ONEDNN_MAX_CPU_ISA={limit} keeps oneDNN from multiplying bfloat16"
        kernels = os.environ.get("ATEN_CPU_CAPABILITY") or ""
        if kernels.upper() in ("DEFAULT", "AVX2"):  # with AMX, torch's attention even raises an error then
            return torch.float32, f"ATEN_CPU_CAPABILITY={kernels} keeps torch from its fast kernels for bfloat16"
        for capability, title in (("amx_bf16", "AMX-BF16"), ("avx512_bf16", "AVX512-BF16")):
            if cpu_capabilities().get(capability):
                return torch.bfloat16, f"this CPU has {title}"
        return torch.float32, "this CPU has neither AMX-BF16 nor AVX512-BF16"
    return torch.float32, f"no gain from bfloat16 is known on {device.type}"


def check_fork() -> None:
    """Raise an error where computing would hang: in a fork of a process that has computed already.

    OpenMP starts helper threads for a thread at its first large operation, and keeps them. A forked child has only the
    thread that forked, and would wait for its helpers forever.

    Raises:
        RuntimeError: this thread has computed in a process of which this one is a fork.
    """
    if not hasattr(_computed, "process"):
        _computed.process = os.getpid()
    if _computed.process != os.getpid() and torch.get_num_threads() > 1:
        raise RuntimeError(
            f"this process ({os.getpid()}) must not be a fork of one that has computed already "
            f"({_computed.process}): torch's threads do not survive a fork; fork after `load` and before the first "
            "`encode`, or start processes by 'spawn', or call torch.set_num_threads(1) here"
        )


_computed = threading.local()  # by thread: in which process it first computed


def without_autocast() -> AbstractContextManager[object]:
    """A context without autocast on the CPU, which oneDNN's operators do not support."""
    return torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext()


def cpu_capabilities() -> dict[str, Any]:
    """What torch knows of the CPU: its name, and whether it has "amx_bf16" and others."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    return {"avx512_bf16": getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()}  # older versions of torch
