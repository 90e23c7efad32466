from __future__ import annotations

import math

import pytest
import torch

from gptlab.dataset import create_dataloader
from gptlab.loss import calc_loss_batch, calc_loss_loader, evaluate_model, token_losses
from tests.small_models import VOCABULARY, small_model, some_ids


def loader(n: int = 16 * 10 + 1, **settings: object) -> torch.utils.data.DataLoader:
    return create_dataloader(some_ids(n), batch_size=2, context_length=16, **settings)  # type: ignore[arg-type]


def test_a_batch_loss_is_the_mean_over_its_positions_and_can_be_differentiated() -> None:
    model, inputs, targets = small_model(), some_ids(8).view(2, 4), some_ids(8, seed=1).view(2, 4)
    chances = model(inputs).log_softmax(-1).gather(-1, targets[..., None])
    loss = calc_loss_batch(inputs, targets, model, "cpu")
    assert loss.item() == pytest.approx(-chances.mean().item(), rel=1e-6)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_uniform_guessing_costs_the_logarithm_of_the_vocabulary() -> None:
    model = small_model()
    torch.nn.init.zeros_(model.out_head.weight)
    assert calc_loss_loader(loader(), model, "cpu") == pytest.approx(math.log(VOCABULARY), rel=1e-6)


def test_a_loader_loss_is_the_mean_of_its_batch_losses() -> None:
    model = small_model()
    each = [calc_loss_loader([batch], model, "cpu") for batch in loader(shuffle=False)]
    assert len(set(each)) == 5
    assert calc_loss_loader(loader(shuffle=False), model, "cpu") == pytest.approx(sum(each) / 5)
    assert calc_loss_loader(loader(shuffle=False), model, "cpu", 2) == pytest.approx(sum(each[:2]) / 2)


def test_more_batches_than_there_are_means_all_of_them() -> None:
    model = small_model()
    assert calc_loss_loader(loader(), model, "cpu", 99) == calc_loss_loader(loader(), model, "cpu")


@pytest.mark.parametrize("batches", [[], loader(n=5)])
def test_an_empty_loader_has_no_loss(batches: object) -> None:
    assert math.isnan(calc_loss_loader(batches, small_model(), "cpu"))  # type: ignore[arg-type]


def test_no_batch_at_all_has_no_loss() -> None:
    assert math.isnan(calc_loss_loader(loader(), small_model(), "cpu", 0))


def test_an_iterator_of_batches_is_read_only_as_far_as_asked() -> None:
    batches = iter(loader(shuffle=False))
    calc_loss_loader(batches, small_model(), "cpu", 2)
    assert len(list(batches)) == 3


def test_evaluation_reads_the_first_batches_of_the_text_whatever_the_order_of_training() -> None:
    model, shuffled, ordered = small_model(), loader(shuffle=True), loader(shuffle=False)
    expected = calc_loss_loader(ordered, model, "cpu", 2), calc_loss_loader(ordered, model, "cpu", 2)
    for epoch in (1, 2):
        shuffled.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        assert calc_loss_loader(shuffled, model, "cpu", 2) != expected[0]
        assert evaluate_model(model, shuffled, ordered, "cpu", 2) == expected


def test_evaluation_covers_a_last_batch_that_is_not_full_only_where_the_loader_does() -> None:
    model = small_model()
    for drop_last, batches in ((True, 2), (False, 3)):
        short = loader(n=16 * 5 + 1, shuffle=False, drop_last=drop_last)
        each = [calc_loss_loader([batch], model, "cpu") for batch in short]
        assert len(each) == batches
        assert evaluate_model(model, short, short, "cpu", None)[0] == pytest.approx(sum(each) / batches)


def test_evaluation_leaves_mode_gradients_and_random_stream_alone() -> None:
    model = small_model(drop_rate=0.5).train()
    model.trf_blocks[1].eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    first = evaluate_model(model, loader(), loader(shuffle=False), "cpu", 5)
    assert evaluate_model(model, loader(), loader(shuffle=False), "cpu", 5) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluation_with_torchs_own_shuffling_loader_leaves_the_random_stream_alone() -> None:
    plain = torch.utils.data.DataLoader(loader().dataset, batch_size=2, shuffle=True)
    before = torch.get_rng_state()
    calc_loss_loader(plain, small_model(), "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_surprises_of_a_window_average_to_its_loss_one_window_or_several() -> None:
    model, windows = small_model().train(), some_ids(2 * 9).view(2, 9)
    losses = token_losses(model, windows)
    assert losses.shape == (2, 8)
    assert model.training
    whole = calc_loss_loader([(windows[:, :-1], windows[:, 1:])], model, "cpu")
    assert losses.mean().item() == pytest.approx(whole, rel=1e-6)
    torch.testing.assert_close(token_losses(model, windows[1]), losses[1])


@pytest.mark.parametrize("length", [0, 1, 18])
def test_a_passage_too_short_or_too_long_to_score_is_refused_with_its_length(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} tokens.*2 to 17"):
        token_losses(small_model(), some_ids(length))
