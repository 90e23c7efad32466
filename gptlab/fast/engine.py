"""A GPTModel's training step, evaluation and update by the fast pieces; the model stays the owner of its weights.

The model's fp32 parameters are the master: saving, sampling and resuming see nothing else. With bf16 the engine keeps a
copy of every matrix that is multiplied with (``refresh`` makes it anew, an update writes it); vectors and the embedding
tables are used as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gptlab.device import available_cores
from gptlab.fast import adamw, dropout, head
from gptlab.fast.block import BlockWeights, block_forward, embed, last_norm
from gptlab.fast.compiling import compiler
from gptlab.fast.precision import onednn_is_exact, onednn_products
from gptlab.model import GPTModel

Batch = tuple[Tensor, Tensor]


@dataclass
class _Functions:
    """The regions, compiled or as they are."""

    block: Any
    embed: Any
    last_norm: Any
    softmax: Any
    totals: Any
    update: Any
    square_sums: Any

    def compiled(self) -> _Functions:
        def compile(function: Any, dynamic: bool) -> Any:
            return torch.compile(function, dynamic=dynamic, fullgraph=True)

        lengths_vary = ("update", "square_sums")
        return _Functions(**{name: compile(function, name in lengths_vary) for name, function in vars(self).items()})


_ENOUGH = 100_000  # numbers; kernels are built for fewer and for more than a few thousand
_PLAIN = _Functions(
    block=block_forward,
    embed=embed,
    last_norm=last_norm,
    softmax=head.softmax_gradient,
    totals=head.row_totals,
    update=adamw.update_in_place,
    square_sums=adamw.square_sums,
)


class Engine:
    """The fast way to train and evaluate ``model`` (on the CPU). ``dtype``: of the matrix products."""

    def __init__(self, model: GPTModel, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> None:
        self.model, self.dtype, self.seed = model, dtype, seed
        self.config = model.config
        self.onednn = dtype == torch.float32 and onednn_is_exact()
        self.functions = _PLAIN
        self.shape: tuple[int, int] | None = None  # the batch shape that is compiled for
        self._copies: dict[Tensor, Tensor] = {}
        self._gradients: dict[Tensor, Tensor] = {}
        self._rows: adamw.Rows | None = None  # the gradient of the token embedding, unless it is the head too
        self._moving: tuple[Tensor, Tensor] | None = None  # moments of that embedding, and its rows that have any
        self._buffer = torch.empty(0, head.padded(self.config.vocab_size), dtype=dtype)
        self._joined: list[tuple[Tensor, tuple[Tensor, ...]]] = []  # leaves, and what their rows are copies of
        self._make_leaves()

    # -- weights

    def _make_leaves(self) -> None:
        """What the products read: copies of the matrices, or in fp32 the parameters where nothing is to be joined."""
        model, dtype, vocabulary = self.model, self.dtype, self.config.vocab_size
        self._head_of = model.out_head.weight
        if dtype == torch.float32:
            self._head = self._head_of.detach()
        else:
            self._head = torch.zeros(head.padded(vocabulary), self.config.emb_dim, dtype=dtype)
            self._copies[self._head_of] = self._head[:vocabulary]
        self._blocks = [self._weights(block) for block in model.trf_blocks]
        self.refresh()

    def _weights(self, block: Any) -> BlockWeights:
        att, wide, narrow = block.att, block.ff.layers[0], block.ff.layers[2]
        parts = (att.W_query, att.W_key, att.W_value)
        return BlockWeights(
            block.norm1.scale,
            block.norm1.shift,
            self._leaf(*(part.weight for part in parts)),
            None if att.W_query.bias is None else tuple(part.bias for part in parts),
            self._leaf(att.out_proj.weight),
            att.out_proj.bias,
            block.norm2.scale,
            block.norm2.shift,
            self._leaf(wide.weight),
            wide.bias,
            self._leaf(narrow.weight),
            narrow.bias,
        )

    def _leaf(self, *parameters: Tensor) -> Tensor:
        """One matrix to multiply with: the rows of ``parameters`` below one another."""
        if self.dtype == torch.float32 and len(parameters) == 1:
            return parameters[0]
        leaf = torch.empty(sum(map(len, parameters)), parameters[0].shape[1], dtype=self.dtype)
        self._copies.update(zip(parameters, leaf.split([len(p) for p in parameters]), strict=True))
        self._joined.append((leaf.requires_grad_(), parameters))
        return leaf

    def refresh(self) -> None:
        """Take over the model's parameters as they are now. To be called after they were written from outside."""
        self._moving = None
        with torch.no_grad():
            for parameter, copy in self._copies.items():
                copy.detach().copy_(parameter)

    # -- training

    def loss_and_gradients(self, batches: Sequence[Batch], step: int, device: Any = None) -> float:
        """The mean loss of ``batches`` over all their tokens, and with it every gradient (see ``gradients``).

        ``step`` decides the dropout masks, together with the seed. After a loss that is not finite there are no
        gradients.
        """
        self.clear()
        n_tokens = sum(inputs.numel() for inputs, _ in batches)
        embedded: list[tuple[Tensor, Tensor]] = []
        loss = 0.0
        for number, (inputs, targets) in enumerate(batches):
            with onednn_products(self.onednn):
                loss += self._one(inputs, targets, inputs.numel() / n_tokens, step, number, embedded)
            if not math.isfinite(loss):
                self.clear()
                return loss
            self._add_up(several=len(batches) > 1)
        self._collect(embedded)
        return loss

    def _one(self, ids: Tensor, targets: Tensor, share: float, step: int, number: int, embedded: list) -> float:
        f = self._functions_for(ids)
        model, rate = self.model, self.config.drop_rate
        layers, first = dropout.keys(self.seed, step, number, len(self._blocks))
        rows = model.tok_emb.weight.detach()[ids].requires_grad_()  # [B, T, C]
        x = f.embed(rows, model.pos_emb.weight, first, rate)
        for weights, keys in zip(self._blocks, layers.unbind(0), strict=True):
            x = f.block(x, weights, keys, self.config.n_heads, rate)
        last = f.last_norm(x, model.final_norm.scale, model.final_norm.shift, self.dtype)  # [N, C]
        with torch.no_grad():
            loss, dlast, dhead = head.loss_and_gradients(
                last.detach(), self._head, targets.flatten(), share, self.config.vocab_size, self._room(ids), f.softmax
            )
        value = loss.item()
        if math.isfinite(value):
            last.backward(dlast)
            assert rows.grad is not None
            embedded.append((ids, rows.grad))
            so_far, dhead = self._gradients.get(self._head_of), dhead[: self.config.vocab_size]
            self._gradients[self._head_of] = dhead if so_far is None else so_far.add_(dhead)
        return value

    def _room(self, ids: Tensor) -> Tensor:
        if self._buffer.shape[0] < ids.numel():
            self._buffer = torch.empty(ids.numel(), self._head.shape[0], dtype=self.dtype)
        return self._buffer

    def _functions_for(self, ids: Tensor) -> _Functions:
        """Compiled for the usual shape of a batch, as they are for any other, such as a short last one."""
        return self.functions if self.shape == tuple(ids.shape) else _PLAIN

    def _add_up(self, several: bool) -> None:
        """Take the gradients of one batch from the leaves. Those of several batches are summed in fp32."""
        for leaf, parameters in self._joined:
            assert leaf.grad is not None
            parts = leaf.grad.split([len(p) for p in parameters])
            leaf.grad = None
            for parameter, part in zip(parameters, parts, strict=True):
                so_far = self._gradients.get(parameter)
                if so_far is None:
                    self._gradients[parameter] = part.float() if several else part
                else:
                    so_far.add_(part)
        if several:
            self._gradients[self._head_of] = self._gradients[self._head_of].float()

    def _collect(self, embedded: list[tuple[Tensor, Tensor]]) -> None:
        rows = adamw.gather_rows(
            torch.cat([ids.flatten() for ids, _ in embedded]), torch.cat([grad.flatten(0, 1) for _, grad in embedded])
        )
        table = self.model.tok_emb.weight
        if table is self._head_of:
            dense = self._gradients[table]
            dense[rows.index] = (dense[rows.index].float() + rows.values).to(dense.dtype)
        else:
            self._rows = rows
        for parameter in self.model.parameters():
            if parameter not in self._gradients and (parameter is not table or self._rows is None):
                assert parameter.grad is not None
                self._gradients[parameter] = parameter.grad

    def clear(self) -> None:
        """Forget the gradients."""
        self._gradients.clear()
        self._rows = None
        for parameter in self.model.parameters():
            parameter.grad = None
        for leaf, _ in self._joined:
            leaf.grad = None

    def gradients(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter with its gradient, as one tensor of its shape."""
        for parameter in self.model.parameters():
            if parameter is self.model.tok_emb.weight and self._rows is not None:
                yield parameter, torch.zeros_like(parameter).index_copy_(0, self._rows.index, self._rows.values)
            else:
                yield parameter, self._gradients[parameter]

    def norm(self) -> float:
        """The length of all gradients together."""
        every = list(self._gradients.values())
        with torch.no_grad():
            sums = [self.functions.square_sums(g) for g in every if g.dim() == 2]
            if self._rows is not None:
                sums.append(adamw.square_sums(self._rows.values))
            whole = torch.cat(sums).sum().item()
        vectors = torch._foreach_norm([g for g in every if g.dim() == 1])
        return math.sqrt(whole + math.fsum(t.item() ** 2 for t in vectors))

    def update(self, optimizer: torch.optim.Optimizer, shrink: float = 1.0) -> None:
        """One step of AdamW with the gradients times ``shrink``, which are then forgotten."""
        group = optimizer.param_groups[0]
        states: dict[Tensor, dict[str, Tensor]] = {p: _state(optimizer, p) for p in self.model.parameters()}
        torch._foreach_add_([state["step"] for state in states.values()], 1)
        step = int(next(iter(states.values()))["step"].item())
        numbers = adamw.step_numbers(group, step, shrink)
        with torch.no_grad():
            for p, gradient in self._gradients.items():
                if p.dim() == 2:
                    copy = self._copies.get(p)
                    moments = (states[p]["exp_avg"], states[p]["exp_avg_sq"])
                    flat = (part.detach().view(-1) for part in (p, *moments, gradient))
                    self.functions.update(*flat, None if copy is None else copy.detach().view(-1), numbers)
            if self._rows is not None:
                table = self.model.tok_emb.weight
                moments = (states[table]["exp_avg"], states[table]["exp_avg_sq"])
                if self._moving is None or self._moving[0] is not moments[1]:
                    self._moving = (moments[1], adamw.rows_with_moments(*moments))
                moving = adamw.update_rows(
                    table.detach(), *moments, self._rows, self._moving[1], numbers, self.functions.update
                )
                self._moving = (moments[1], moving)
            vectors = [p for p in self._gradients if p.dim() == 1]
            slopes = [self._gradients[p] for p in vectors]
            torch._foreach_mul_(slopes, shrink)
            torch._fused_adamw_(
                vectors,
                slopes,
                [states[p]["exp_avg"] for p in vectors],
                [states[p]["exp_avg_sq"] for p in vectors],
                [],
                [states[p]["step"] for p in vectors],
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        self.clear()

    # -- evaluation

    def loss(self, ids: Tensor, targets: Tensor) -> float:
        """Mean cross-entropy of a batch, dropout off."""
        f = self._functions_for(ids)
        model = self.model
        none = torch.zeros(dropout.SITES, 2, dtype=torch.int32)
        with torch.no_grad(), onednn_products(self.onednn):
            x = embed(model.tok_emb.weight[ids], model.pos_emb.weight, none[0], 0.0)  # one sum: not worth compiling
            for weights in self._blocks:
                x = f.block(x, weights, none, self.config.n_heads, 0.0)
            last = f.last_norm(x, model.final_norm.scale, model.final_norm.shift, self.dtype)
            loss = head.loss_only(
                last, self._head, targets.flatten(), self.config.vocab_size, self._room(ids), f.totals
            )
        return loss.item()

    # -- compiling

    def compile(self, batch_size: int, n_tokens: int) -> None:
        """Compile for batches of that shape, by making a step and an evaluation that change nothing.

        Whatever the compiler raises is the caller's to catch; the engine then works as before.
        """
        ids = torch.zeros(batch_size, n_tokens, dtype=torch.long)
        self.functions, self.shape = _PLAIN.compiled(), (batch_size, n_tokens)
        try:
            with compiler(available_cores()):
                self.loss_and_gradients([(ids, ids)], step=0)
                self.norm()
                self._try_updates()
                self.loss(ids, ids)
        except BaseException:
            self.functions, self.shape = _PLAIN, None
            raise
        finally:
            self.clear()

    def _try_updates(self) -> None:
        """Compile the update for each kind and size of gradient that there is, on tensors of zeros."""
        numbers = torch.zeros(9)
        rows = None if self._rows is None else self._rows.values
        matrices = [(p, g) for p, g in self._gradients.items() if p.dim() == 2]
        kinds: set[tuple] = {(p.numel(), g.dtype, p in self._copies) for p, g in matrices}
        if rows is not None:
            table = self.model.tok_emb.weight
            kinds |= {(table.numel(), None, False), (rows.numel(), rows.dtype, False)}
        for length, dtype, copied in {(min(n, _ENOUGH), dtype, copied) for n, dtype, copied in kinds}:
            room = [torch.zeros(length) for _ in range(3)]
            gradient = None if dtype is None else torch.zeros(length, dtype=dtype)
            with torch.no_grad():
                self.functions.update(
                    *room, gradient, torch.zeros(length, dtype=self.dtype) if copied else None, numbers
                )


def _state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What ``torch.optim.AdamW`` keeps for a parameter; made, as it would, before its first step."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    return state
