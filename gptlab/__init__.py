"""gptlab: train a GPT-2-shaped model from scratch and see what every epoch learnt.

A run is a folder; training writes facts into it, everything else reads them.

==================  ========================================================================================
what is it trained  ``config``, ``parsing`` (settings), ``corpus``, ``tokenizer``, ``dataset`` (text to batches)
the model           ``model``, ``loss``, ``schedule``, ``sampling``, ``checkpoint``, ``interop``
its training        ``training`` (the loop), ``state`` (a step), ``acceleration``, ``saving``, ``epoch_look``
looking inside      ``distribution``, ``beams``, ``inspection``, ``explain``, ``token_history``, ``perplexity``
a run               ``events``, ``log`` (facts), ``runs`` (folders), ``launcher``, ``worker`` (processes), ``fork``
what it says        ``metrics``, ``coach`` (its curves); ``published``, ``verdict``, ``published_order`` (the exercise)
many runs           ``grid``, ``queue``, ``runner`` (one after another), ``summary``, ``report``, ``script``
around it           ``home`` (data folder), ``direct_file``, ``device``, ``estimate``, ``figures``, ``export``
==================  ========================================================================================

The names below load their module, and torch with it, when they are first used: importing this package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptlab.beams import beam_search
    from gptlab.checkpoint import load_model
    from gptlab.config import PRESETS, ModelConfig, RunConfig, SamplingConfig
    from gptlab.corpus import open_corpus
    from gptlab.dataset import GPTDataset, create_dataloader
    from gptlab.device import available_devices, pick_device
    from gptlab.distribution import filtered_distribution
    from gptlab.explain import explain_token
    from gptlab.inspection import attention_maps, logit_lens, next_token_distribution, read_passage
    from gptlab.interop import load_reference_state_dict
    from gptlab.loss import calc_loss_batch, calc_loss_loader, evaluate_model, token_losses
    from gptlab.model import GPTModel
    from gptlab.perplexity import score_text
    from gptlab.runs import RunStore
    from gptlab.sampling import generate, generate_batch
    from gptlab.token_history import token_makeup
    from gptlab.tokenizer import get_tokenizer, text_to_token_ids, token_ids_to_text
    from gptlab.training import train

_HOMES = {
    "GPTModel": "model",
    "ModelConfig": "config",
    "RunConfig": "config",
    "SamplingConfig": "config",
    "PRESETS": "config",
    "get_tokenizer": "tokenizer",
    "text_to_token_ids": "tokenizer",
    "token_ids_to_text": "tokenizer",
    "open_corpus": "corpus",
    "GPTDataset": "dataset",
    "create_dataloader": "dataset",
    "calc_loss_batch": "loss",
    "calc_loss_loader": "loss",
    "evaluate_model": "loss",
    "token_losses": "loss",
    "train": "training",
    "attention_maps": "inspection",
    "logit_lens": "inspection",
    "next_token_distribution": "inspection",
    "read_passage": "inspection",
    "explain_token": "explain",
    "token_makeup": "token_history",
    "filtered_distribution": "distribution",
    "beam_search": "beams",
    "score_text": "perplexity",
    "generate": "sampling",
    "generate_batch": "sampling",
    "available_devices": "device",
    "pick_device": "device",
    "RunStore": "runs",
    "load_model": "checkpoint",
    "load_reference_state_dict": "interop",
}

__version__ = "0.1.0"
__all__ = [
    "PRESETS",
    "GPTDataset",
    "GPTModel",
    "ModelConfig",
    "RunConfig",
    "RunStore",
    "SamplingConfig",
    "attention_maps",
    "available_devices",
    "beam_search",
    "calc_loss_batch",
    "calc_loss_loader",
    "create_dataloader",
    "evaluate_model",
    "explain_token",
    "filtered_distribution",
    "generate",
    "generate_batch",
    "get_tokenizer",
    "load_model",
    "load_reference_state_dict",
    "logit_lens",
    "next_token_distribution",
    "open_corpus",
    "pick_device",
    "read_passage",
    "score_text",
    "text_to_token_ids",
    "token_ids_to_text",
    "token_losses",
    "token_makeup",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
