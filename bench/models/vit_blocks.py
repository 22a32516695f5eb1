"""What the vision transformers share: attention over tokens, the two-layer MLP, position tables."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import InputError


class Attention(nn.Module):
    """Multi-head self-attention with one joint projection to queries, keys and values: `(B, N, D)` to `(B, N, D)`."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        require_divisible(dim, heads)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor) -> Tensor:
        """Return queries, keys and values in one tensor, `(B, N, 3 * D)`."""
        qkv: Tensor = self.qkv(x)
        return qkv

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.project(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, tokens, dim))
        return output


class Mlp(nn.Module):
    """Linear, activation, linear; `ratio` is the hidden width over `dim`."""

    def __init__(self, dim: int, *, ratio: float = 4, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, int(dim * ratio))
        self.act = activation or nn.GELU()
        self.fc2 = nn.Linear(int(dim * ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc2(self.act(self.fc1(x)))
        return output


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to its input."""

    def __init__(self, dim: int, *, attention: nn.Module, mlp_ratio: float = 4, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, ratio=mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class TubeletEmbed(nn.Module):
    """Tubelets as vectors: `(B, C, T, H, W)` to `(B, N, D)`."""

    def __init__(self, dim: int, *, tubelet: int, patch: int) -> None:
        super().__init__()
        size = (tubelet, patch, patch)
        self.proj = nn.Conv3d(3, dim, size, stride=size)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        output: Tensor = self.proj(clip_BCTHW).flatten(2).transpose(1, 2)
        return output


def split_axis(x: Tensor, axis: int, *sizes: int) -> Tensor:
    """Return `x` with its axis number `axis` split into `sizes`; one of them may be -1."""
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def require_divisible(dim: int, heads: int) -> None:
    """Raise InputError unless `heads` divides `dim`."""
    if heads < 1 or dim % heads:
        raise InputError(f"a width of {dim} cannot be divided among {heads} attention heads")


def init_vit(model: nn.Module) -> None:
    """Initialise linear layers with a truncated normal of 0.02 and zero biases, as the ViTs here do."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def sinusoid_table(tokens: int, dim: int) -> Tensor:
    """Return the fixed position table `(1, tokens, dim)` of Vaswani et al., 2017, section 3.5, in float32.

    Computed in float64: at a phase of a thousand, float32 is wrong in the fourth digit.
    """
    if torch.get_default_device().type == "meta":  # where the sine alone would import the compiler
        return torch.empty(1, tokens, dim)
    exponent = 2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim
    phase = torch.arange(tokens, dtype=torch.float64)[:, None] / torch.pow(torch.tensor(10000.0).double(), exponent)
    table = torch.where(torch.arange(dim) % 2 == 0, phase.sin(), phase.cos())
    return table[None].float()
