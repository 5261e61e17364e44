"""Attention as one operator (opset 23)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network._operator import Operation, Site, operator


@operator("Attention")
def _attention(site: Site) -> Operation:
    """Q, K, V, mask, past key, past value; of the outputs Y, present key and present value."""
    windowed = site.attribute("left_window_size", -1) >= 0 or site.attribute("right_window_size", -1) >= 0
    if site.wants(3) or site.has(6) or windowed or (site.attribute("is_causal", 0) and site.has(4)):
        raise site.refusal("gives its scores, looks through a window, or continues a sequence")
    query_heads, key_heads = site.attribute("q_num_heads"), site.attribute("kv_num_heads")

    def run(queries: Tensor, keys: Tensor, values: Tensor, *rest: Tensor | None) -> tuple[Tensor, ...] | Tensor:
        mask, past_keys, past_values = [*rest, None, None, None][:3]
        flat = queries.dim() == 3
        if flat:
            queries, keys, values = (
                _split_heads(part, heads)
                for part, heads in ((queries, query_heads), (keys, key_heads), (values, key_heads))
            )
        if past_keys is not None and past_values is not None:
            keys, values = torch.cat((past_keys, keys), 2), torch.cat((past_values, values), 2)
        result = _attend(site, queries, keys, values, mask)
        result = result.transpose(1, 2).flatten(2) if flat else result
        return result if len(site.node.outputs) == 1 else (result, keys, values)

    return run


def _split_heads(value: Tensor, heads: int) -> Tensor:
    """(N, T, heads * C) to (N, heads, T, C)."""
    return value.reshape(value.shape[0], value.shape[1], heads, -1).transpose(1, 2)


def _attend(site: Site, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    groups = queries.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    causal, cap = bool(site.attribute("is_causal", 0)), site.attribute("softcap", 0.0)
    scale = site.attribute("scale") or 1 / math.sqrt(queries.shape[-1])
    if causal and (mask is not None or cap):
        mask, causal = _causal(mask, queries.shape[2], keys.shape[2], queries.device), False
    if not cap:
        return F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=causal, scale=scale)
    scores = cap * torch.tanh(queries @ keys.transpose(-1, -2) * (scale / cap))
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, -1) @ values


def _causal(mask: Tensor | None, rows: int, columns: int, device: torch.device) -> Tensor:
    """A mask without what comes later."""
    allowed = torch.ones(rows, columns, dtype=torch.bool, device=device).tril()
    if mask is None:
        return allowed
    return mask & allowed if mask.dtype == torch.bool else mask.masked_fill(~allowed, -torch.inf)
