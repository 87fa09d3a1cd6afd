from torch import Tensor

class Dense:
    @property
    def bytes(self) -> int: ...

class Experts:
    def adapt_gate_up(self, down: Tensor, up: Tensor) -> None: ...
    def adapt_down(self, down: Tensor, up: Tensor) -> None: ...

class Kernels:
    # Addresses (x, out, ...) are those of contiguous float32 memory on the CPU unless `bf16` says otherwise.
    def __init__(self, isa: str, threads: int) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def counts(self) -> dict[str, int]: ...
    def dense_forward(self, layers: list[Dense], x: int, tokens: int, outs: list[int]) -> None: ...
    def experts_forward(
        self,
        experts: Experts,
        x: int,
        router_logits: int,
        tokens: int,
        top_k: int,
        alpha: float,
        limit: float,
        out: int,
    ) -> None: ...
    def rms_norm(self, x: int, scale: int, tokens: int, columns: int, eps: float, out: int) -> None: ...
    def rope(self, x: int, cos: int, sin: int, tokens: int, heads: int, half: int, out: int) -> None: ...
    def attention(
        self,
        q: int,
        k: int,
        k_position_stride: int,
        k_head_stride: int,
        v: int,
        v_position_stride: int,
        v_head_stride: int,
        bf16: bool,
        sinks: int,
        tokens: int,
        keys: int,
        kv_heads: int,
        group: int,
        head_dim: int,
        window: int,
        out: int,
    ) -> None: ...
    def pack_int8(self, weight: Tensor, packed: Tensor) -> None: ...
    def is_packed_from(self, weight: Tensor, packed: Tensor) -> bool: ...
    def read_once(self, data: Tensor) -> int: ...

GEMV_TOKENS: int

def isas() -> list[str]: ...
def keep_freed_memory() -> None: ...
def dense_bf16(weight: Tensor, bias: Tensor | None) -> Dense: ...
def dense_int8(packed: Tensor, rows: int, columns: int, bias: Tensor | None) -> Dense: ...
def int8_bytes(rows: int, columns: int) -> int: ...
def experts(
    gate_up_blocks: Tensor,
    gate_up_scales: Tensor,
    gate_up_bias: Tensor,
    down_blocks: Tensor,
    down_scales: Tensor,
    down_bias: Tensor,
) -> Experts: ...
def joined_experts(
    gate_up_parts: list[Tensor],
    gate_up_halves: bool,
    gate_up_bias: Tensor,
    down_parts: list[Tensor],
    down_halves: bool,
    down_bias: Tensor,
) -> Experts: ...
