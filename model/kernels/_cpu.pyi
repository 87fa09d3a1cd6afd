from torch import Tensor

class Dense:
    @property
    def bytes(self) -> int: ...

class Experts:
    def forward(
        self,
        x: int,
        router_logits: int,
        tokens: int,
        top_k: int,
        alpha: float,
        limit: float,
        out: int,
        threads: int,
    ) -> None: ...

GEMV_TOKENS: int

def isas() -> list[str]: ...
def isa() -> str: ...
def use_isa(name: str) -> None: ...
def counts() -> dict[str, int]: ...
def reset_counts() -> None: ...
def keep_freed_memory() -> None: ...
def dense_forward(layers: list[Dense], x: int, tokens: int, outs: list[int], threads: int) -> None: ...
def dense(weight: Tensor, bias: Tensor | None, int8: bool, threads: int) -> Dense: ...
def experts(
    gate_up_blocks: Tensor,
    gate_up_scales: Tensor,
    gate_up_bias: Tensor,
    down_blocks: Tensor,
    down_scales: Tensor,
    down_bias: Tensor,
) -> Experts: ...
def read_once(data: Tensor, threads: int) -> int: ...
def rms_norm(x: int, scale: int, tokens: int, columns: int, eps: float, out: int, threads: int) -> None: ...
def rope(x: int, cos: int, sin: int, tokens: int, heads: int, half: int, out: int, threads: int) -> None: ...
def attention(
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
    threads: int,
) -> None: ...
