from __future__ import annotations

import contextlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gptlab.config import ModelConfig
from gptlab.model import GELU, GPTModel, KVCache, LayerNorm, MultiHeadAttention, evaluating
from tests.small_models import VOCABULARY, small_config, small_model, some_ids


def test_logits_have_a_score_for_every_token_at_every_position() -> None:
    assert small_model()(some_ids(14).view(2, 7)).shape == (2, 7, VOCABULARY)


def test_a_longer_input_than_the_context_is_refused_with_the_limit() -> None:
    with pytest.raises(ValueError, match=r"17 tokens are more than context_length 16"):
        small_model()(some_ids(17).view(1, 17))


def test_no_token_sees_a_later_one() -> None:
    model, ids = small_model(), some_ids(16).view(1, 16)
    changed = ids.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % VOCABULARY
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.isclose(before[:, 10:], after[:, 10:]).all(-1).any()


def test_layer_norm_equals_pytorchs() -> None:
    norm, theirs, x = LayerNorm(24), nn.LayerNorm(24, eps=1e-5), 3 + 5 * torch.randn(2, 4, 24)
    with torch.no_grad():
        for ours, other in ((norm.scale, theirs.weight), (norm.shift, theirs.bias)):
            other.copy_(ours.normal_())
    torch.testing.assert_close(norm(x), theirs(x))


def test_gelu_equals_pytorchs_tanh_approximation() -> None:
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(GELU()(x), F.gelu(x, approximate="tanh"))


@pytest.mark.parametrize("bias", [False, True])
def test_attention_equals_pytorchs(bias: bool) -> None:
    attention = MultiHeadAttention(small_config(qkv_bias=bias)).eval()
    theirs = nn.MultiheadAttention(24, 3, bias=True, batch_first=True)
    layers = (attention.W_query, attention.W_key, attention.W_value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        theirs.in_proj_bias.zero_()
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        theirs.out_proj.load_state_dict(attention.out_proj.state_dict())
    x = torch.randn(2, 9, 24)
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    torch.testing.assert_close(attention(x), theirs(x, x, x, attn_mask=future, need_weights=False)[0])


@pytest.mark.parametrize("chunks", [[16], [1] * 16, [5, 1, 7, 3]])
def test_reading_through_a_cache_gives_the_same_logits(chunks: list[int]) -> None:
    model, ids = small_model(), some_ids(16).view(1, 16)
    cache = KVCache(model)
    pieces = [model(piece, cache) for piece in ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids))
    assert cache.length == 16


def test_dropout_works_in_training_only() -> None:
    model, ids = small_model(drop_rate=0.5), some_ids(16).view(1, 16)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_a_tied_head_is_the_token_embedding_itself() -> None:
    model = small_model(tie_weights=True)
    assert model.out_head.weight is model.tok_emb.weight
    assert model.n_parameters == small_model().n_parameters - model.tok_emb.weight.numel()


def test_gpt2s_initialisation_narrows_what_writes_to_the_residual_stream() -> None:
    model = small_model(init="gpt2", emb_dim=96, n_layers=8, vocab_size=500, qkv_bias=True)
    for name, parameter in model.named_parameters():
        writes = name.endswith(("att.out_proj.weight", "ff.layers.2.weight"))
        if name.endswith(("bias", "shift")):
            assert parameter.abs().max() == 0, name
        elif name.endswith("scale"):
            assert torch.equal(parameter, torch.ones(96))
        else:
            expected = 0.02 / math.sqrt(2 * 8) if writes else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name


def test_evaluating_gives_every_part_its_own_mode_back() -> None:
    model = small_model().train()
    model.trf_blocks[0].eval()
    before = [module.training for module in model.modules()]
    with contextlib.suppress(RuntimeError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert [module.training for module in model.modules()] == before


def test_the_references_dictionary_describes_a_model() -> None:
    dictionary = {"vocab_size": 50257, "context_length": 256, "emb_dim": 768, "n_heads": 12, "n_layers": 12}
    with torch.device("meta"):
        model = GPTModel(ModelConfig(**dictionary, drop_rate=0.1, qkv_bias=False))
        assert model(torch.zeros(2, 256, dtype=torch.long)).shape == (2, 256, 50257)
