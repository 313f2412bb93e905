"""The peer of bench/versus-pytorch.ts: the DeepSeek-V3 architecture in plain PyTorch, one process a call.

torch-peer.py FOLDER THREADS STEPS fp32|bf16: reads config.json, weights.json with weights.f32, batch.json of FOLDER; trains on
that one batch, each step forward, backward, clipping and AdamW; prints JSON: losses before the first step, seconds of steps.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

folder, threads, steps, precision = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(threads)
config = json.load(open(os.path.join(folder, "config.json")))
C = type("Config", (), config)
SEQUENCE = json.load(open(os.path.join(folder, "batch.json")))["sequence"]


class RmsNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def rotate(x):
    """Interleaved rotary embedding of [batch, heads, sequence, dim]."""
    dim = x.shape[-1]
    frequencies = C.rope_theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.outer(torch.arange(x.shape[-2], dtype=torch.float64), frequencies)
    cos, sin = angles.cos().float(), angles.sin().float()
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        heads, nope, rope = C.num_attention_heads, C.qk_nope_head_dim, C.qk_rope_head_dim
        self.q_a_proj = linear(C.hidden_size, C.q_lora_rank)
        self.q_a_layernorm = RmsNorm(C.q_lora_rank, 1e-6)
        self.q_b_proj = linear(C.q_lora_rank, heads * (nope + rope))
        self.kv_a_proj_with_mqa = linear(C.hidden_size, C.kv_lora_rank + rope)
        self.kv_a_layernorm = RmsNorm(C.kv_lora_rank, 1e-6)
        self.kv_b_proj = linear(C.kv_lora_rank, heads * (nope + C.v_head_dim))
        self.o_proj = linear(heads * C.v_head_dim, C.hidden_size)
        self.register_buffer("hidden", torch.full((SEQUENCE, SEQUENCE), float("-inf")).triu(1), persistent=False)

    def forward(self, x):
        batch, length, _ = x.shape
        heads, nope, rope = C.num_attention_heads, C.qk_nope_head_dim, C.qk_rope_head_dim
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).view(batch, length, heads, nope + rope).transpose(1, 2)
        latent, shared = self.kv_a_proj_with_mqa(x).split([C.kv_lora_rank, rope], -1)
        expanded = self.kv_b_proj(self.kv_a_layernorm(latent)).view(batch, length, heads, nope + C.v_head_dim).transpose(1, 2)
        k, v = expanded.split([nope, C.v_head_dim], -1)
        q = torch.cat((q[..., :nope], rotate(q[..., nope:]).to(q.dtype)), -1)
        k = torch.cat((k, rotate(shared[:, None]).to(k.dtype).expand(-1, heads, -1, -1)), -1)
        if hasattr(F, "scaled_dot_product_attention"):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) * (nope + rope) ** -0.5 + self.hidden
            mixed = scores.softmax(-1).to(v.dtype) @ v
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate_proj, self.up_proj = linear(C.hidden_size, width), linear(C.hidden_size, width)
        self.down_proj = linear(width, C.hidden_size)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(C.n_routed_experts, C.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(C.n_routed_experts))

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            scores = F.linear(x.float(), self.weight).sigmoid()
        chosen = (scores.detach() + self.e_score_correction_bias).topk(C.num_experts_per_tok, -1).indices
        weights = scores.gather(-1, chosen)
        return chosen, weights / weights.sum(-1, keepdim=True) * C.routed_scaling_factor


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = Gate()
        self.experts = nn.ModuleList(FeedForward(C.moe_intermediate_size) for _ in range(C.n_routed_experts))
        self.shared_experts = FeedForward(C.moe_intermediate_size * C.n_shared_experts)

    def forward(self, x):
        rows = x.flatten(0, 1)
        chosen, weights = self.gate(rows)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=C.n_routed_experts).tolist()
        tokens = order // C.num_experts_per_tok
        pieces = rows[tokens].split(counts)
        outputs = torch.cat([expert(piece) for expert, piece in zip(self.experts, pieces)])
        routed = torch.zeros_like(rows, dtype=torch.float32)
        routed = routed.index_add(0, tokens, outputs.float() * weights.flatten()[order, None])
        return (routed + self.shared_experts(rows)).view_as(x)


class Layer(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.input_layernorm = RmsNorm(C.hidden_size, C.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(C.hidden_size, C.rms_norm_eps)
        self.self_attn = Attention()
        self.mlp = FeedForward(C.intermediate_size) if index < C.first_k_dense_replace else Experts()

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class SharedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = RmsNorm(C.hidden_size, C.rms_norm_eps)


class MtpLayer(Layer):
    def __init__(self, index):
        super().__init__(index)
        self.enorm, self.hnorm = RmsNorm(C.hidden_size, C.rms_norm_eps), RmsNorm(C.hidden_size, C.rms_norm_eps)
        self.eh_proj = linear(2 * C.hidden_size, C.hidden_size)
        self.shared_head = SharedHead()

    def forward(self, hidden, following):
        joined = torch.cat((self.enorm(following), self.hnorm(hidden)), -1)
        return self.shared_head.norm(super().forward(self.eh_proj(joined)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(C.vocab_size, C.hidden_size)
        self.norm = RmsNorm(C.hidden_size, C.rms_norm_eps)
        layers = [Layer(i) for i in range(C.num_hidden_layers)]
        self.layers = nn.ModuleList(layers + [MtpLayer(C.num_hidden_layers + i) for i in range(C.num_nextn_predict_layers)])

    def forward(self, ids, targets, ahead):
        x = self.embed_tokens(ids)
        for layer in self.layers[: C.num_hidden_layers]:
            x = layer(x)
        x = self.norm(x)
        loss, following = self.loss(x, targets), []
        for layer, (next_ids, next_targets) in zip(self.layers[C.num_hidden_layers :], ahead):
            x = layer(x, self.embed_tokens(next_ids))
            following.append(self.loss(x, next_targets))
        return loss, sum(following) / max(len(following), 1)

    def loss(self, x, targets):
        logits = F.linear(x, self.embed_tokens.weight).flatten(0, 1).float()
        return F.cross_entropy(logits, targets.flatten(), ignore_index=-1)


def load(model):
    values = torch.from_numpy(np.fromfile(os.path.join(folder, "weights.f32"), dtype=np.float32))
    entries = json.load(open(os.path.join(folder, "weights.json")))
    state = {entry["name"].replace("model.", "", 1): values[entry["at"] : entry["at"] + entry["count"]].view(entry["shape"]) for entry in entries}
    result = model.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if not name.endswith("e_score_correction_bias")]
    if missing or result.unexpected_keys:
        raise SystemExit(f"weights differ: missing {missing}, unexpected {result.unexpected_keys}")


def main():
    model = Model()
    load(model)
    matrices = [p for p in model.parameters() if p.dim() == 2 and p is not model.embed_tokens.weight]
    others = [p for p in model.parameters() if p.dim() != 2 or p is model.embed_tokens.weight]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, foreach=True)
    batch = json.load(open(os.path.join(folder, "batch.json")))
    window = lambda values: torch.tensor(values).view(-1, SEQUENCE)
    ids, targets = window(batch["ids"]), window(batch["targets"])
    ahead = [(window(each["ids"]), window(each["targets"])) for each in batch["ahead"]]
    seconds, first, norm = [], None, None
    for _ in range(steps):
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss, mtp = model(ids, targets, ahead)
        (loss + batch["mtpWeight"] * mtp).backward()
        size = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if first is None:
            first, norm = (loss.item(), float(mtp)), size.item()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"version": torch.__version__, "loss": first[0], "mtp": first[1], "norm": norm, "seconds": seconds}))


main()
