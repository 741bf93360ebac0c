"""Transformers whose parameter names are those of published weights: a BERT encoder and a Llama decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class BertLayer(nn.Module):
    """Self-attention and feed-forward, each with its residual and LayerNorm after."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                "output": nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, 1e-12)}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output = nn.ModuleDict({"dense": nn.Linear(hidden, width), "LayerNorm": nn.LayerNorm(width, 1e-12)})

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape

        def split(name: str) -> torch.Tensor:
            return self.attention["self"][name](x).view(batch, length, self.heads, -1).transpose(1, 2)

        scores = split("query") @ split("key").transpose(-1, -2) / (width // self.heads) ** 0.5 + bias
        mixed = (scores.softmax(-1) @ split("value")).transpose(1, 2).reshape(batch, length, width)
        x = self.attention["output"]["LayerNorm"](self.attention["output"]["dense"](mixed) + x)
        y = self.output["dense"](F.gelu(self.intermediate["dense"](x)))
        return self.output["LayerNorm"](y + x)


class Bert(nn.Module):
    """A BERT encoder without pooler (Devlin et al., 2018)."""

    def __init__(self, vocabulary: int, width: int, hidden: int, heads: int, layers: int, positions: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocabulary, width),
                "position_embeddings": nn.Embedding(positions, width),
                "token_type_embeddings": nn.Embedding(2, width),
                "LayerNorm": nn.LayerNorm(width, 1e-12),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer(width, hidden, heads) for _ in range(layers))})

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        tables = self.embeddings
        x = tables["word_embeddings"](ids) + tables["token_type_embeddings"](types)
        x = tables["LayerNorm"](x + tables["position_embeddings"].weight[: ids.shape[1]])
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.encoder["layer"]:
            x = layer(x, bias)
        return x


def minilm(weights: Path) -> nn.Module:
    """all-MiniLM-L6-v2 up to the last hidden state."""
    from safetensors.torch import load_file

    state = load_file(weights)
    unused = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
    net = Bert(30522, 384, 1536, 12, 6, 512)
    net.load_state_dict({name: tensor for name, tensor in state.items() if name not in unused})
    return net


class RMSNorm(nn.Module):
    """Root mean square norm, spelled out as exporters do."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding on neighbouring pairs (2i, 2i+1): the layout of GGUF files."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class LlamaLayer(nn.Module):
    """Grouped-query attention with rotary embedding, and a gated feed-forward; names as in GGUF files."""

    def __init__(self, width: int, hidden: int, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.attn_norm, self.ffn_norm = RMSNorm(width, eps), RMSNorm(width, eps)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, groups * self.size, bias=False)
        self.attn_v = nn.Linear(width, groups * self.size, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_gate = nn.Linear(width, hidden, bias=False)
        self.ffn_up = nn.Linear(width, hidden, bias=False)
        self.ffn_down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        h = self.attn_norm(x)
        q = rotate(self.attn_q(h).view(batch, length, self.heads, self.size).transpose(1, 2), cos, sin)
        k = rotate(self.attn_k(h).view(batch, length, self.groups, self.size).transpose(1, 2), cos, sin)
        v = self.attn_v(h).view(batch, length, self.groups, self.size).transpose(1, 2)
        repeats = self.heads // self.groups
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        scores = (q @ k.transpose(-1, -2) * self.size**-0.5 + bias).softmax(-1)
        x = x + self.attn_output((scores @ v).transpose(1, 2).reshape(batch, length, width))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Llama(nn.Module):
    """A decoder without cache; the embedding is the classifier too."""

    def __init__(
        self, vocabulary: int, width: int, hidden: int, heads: int, groups: int, layers: int, base: float, eps: float
    ) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(vocabulary, width)
        self.blk = nn.ModuleList(LlamaLayer(width, hidden, heads, groups, eps) for _ in range(layers))
        self.output_norm = RMSNorm(width, eps)
        size = width // heads
        frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        batch, length = ids.shape
        position = torch.arange(length, device=ids.device)
        angle = position[:, None].to(torch.float32) * self.frequencies
        future = position[None, :] > position[:, None]
        bias = future.to(torch.float32) * torch.finfo(torch.float32).min
        x = self.token_embd(ids)
        for layer in self.blk:
            x = layer(x, angle.cos(), angle.sin(), bias)
        x = self.output_norm(x).view(batch * length, -1)
        # As addmm: the exporter turns F.linear into a second, transposed copy of the table.
        logits = torch.addmm(x.new_zeros(1), x, self.token_embd.weight.t())
        return logits.view(batch, length, -1)


def smollm2(weights: Path) -> nn.Module:
    """A Llama from a GGUF file, its weights dequantized to fp32; sizes come from the file."""
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(weights)

    def setting(name: str) -> float:
        return reader.fields[f"llama.{name}"].contents()

    net = Llama(
        int(setting("vocab_size")),
        int(setting("embedding_length")),
        int(setting("feed_forward_length")),
        int(setting("attention.head_count")),
        int(setting("attention.head_count_kv")),
        int(setting("block_count")),
        setting("rope.freq_base"),
        setting("attention.layer_norm_rms_epsilon"),
    )
    state = {t.name: torch.from_numpy(np.array(dequantize(t.data, t.tensor_type))) for t in reader.tensors}
    net.load_state_dict(state)
    return net
