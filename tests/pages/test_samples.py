"""The Samples page: the same prompts, epoch after epoch, what was copied, and what was learnt when."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gptlab import checkpoint
from gptlab.config import RunConfig
from gptlab.corpus import add_corpus
from gptlab.events import Probed, Sampled, Saved
from gptlab.probing import packed
from gptlab.runs import Run, RunStore
from gptlab.tokenizer import get_tokenizer
from pages.shared import theatre
from pages.shared.epoch_samples import certainty, continuation, count_words, prompt_length, val_loss_at, written_ids
from pages.shared.theatre import frames_of, shared, thinned
from tests.fake_run import PROMPT, TEXTS, hold, make_run
from tests.pages.seen import components, dashboard, words
from tests.small_models import small_model

STORY = "The lamp stood by the window. She said that the lamp was not hers, and went home. " * 40


def sample(text: str, epoch: int = 1, prompt: str = PROMPT) -> Sampled:
    encode = get_tokenizer().encode
    head, tail = encode(prompt), encode(text)
    chances = (*(None for _ in head), *(0.5 for _ in tail))
    return Sampled(epoch=epoch, prompt=prompt, token_ids=(*head, *tail), text=prompt + text, probabilities=chances)


def stage(app) -> dict:
    (data,) = components(app, "theatre")
    return data


def read(data: dict, epoch: int, number: int = 0) -> str:
    """What the theatre shows of an epoch."""
    (frame,) = [frame for frame in data["frames"] if frame["epoch"] == epoch]
    return "".join(data["pieces"][str(token)][0] for token in frame["samples"][number]["ids"])


def table(app, label: str = "Samples of all epochs") -> dict:
    return next(data for data in components(app, "text_table") if data["label"] == label)


def on_a_story(story: str = STORY, **facts: object) -> Run:
    """A run whose last samples are copied from its own text."""
    corpus = add_corpus("story", story)
    config = RunConfig().with_fields(data={"corpus": corpus.reference}, train={"num_epochs": 3})
    texts = (" Ware sofa peculiar lighthouse", " the the the the the the", " She said that the lamp was not hers")
    return make_run(RunStore(), 2, config=config, texts=texts, **facts)  # type: ignore[arg-type]


def watched(run: Run, n_epochs: int = 3) -> None:
    ids = tuple(get_tokenizer().encode(" The lamp, and Anna"))
    for epoch in range(n_epochs):
        for part in ("training", "validation"):
            losses = packed([10.0 - 4 * epoch, 0.1 if epoch else 10.0, 5.0, 9.0][: len(ids) - 1])
            row = Probed(step=9 * epoch, epoch=epoch, part=part, losses=losses, seconds=0.5, token_ids=ids)
            run.append(row)


def test_every_epoch_is_a_frame_and_the_newest_is_asked_for_by_no_one(home: Path) -> None:
    run = make_run(RunStore())
    data = stage(dashboard("samples", run=run.id))
    assert [frame["name"] for frame in data["frames"]][:2] == ["Before training", "After epoch 1"]
    assert [frame["epoch"] for frame in data["frames"]] == list(range(11))
    assert read(data, 10) == PROMPT + TEXTS[-1]
    assert read(data, 0) == PROMPT + TEXTS[0]
    assert data["asked"] is None
    assert data["layout"] == "wide"


def test_each_token_has_its_probability_and_the_prompt_has_none(home: Path) -> None:
    run = make_run(RunStore())
    shown = stage(dashboard("samples", run=run.id))["frames"][-1]["samples"][0]
    assert shown["p"][: shown["prompt"]] == [None] * shown["prompt"]
    assert shown["p"][-1] == pytest.approx(run.log().samples[-1].probabilities[-1], rel=1e-3)
    assert len(shown["p"]) == len(shown["ids"])


def test_a_link_opens_an_epoch_and_a_wrong_one_opens_the_newest(home: Path) -> None:
    run = make_run(RunStore())
    app = dashboard("samples", run=run.id, epoch="3")
    assert stage(app)["asked"] == 3
    assert table(app)["chosen"] == 3
    assert stage(dashboard("samples", run=run.id, epoch="x<b>"))["asked"] is None
    assert stage(dashboard("samples", run=run.id, epoch="99"))["asked"] is None


def test_what_neighbours_share_is_told_with_the_frames(home: Path) -> None:
    run = make_run(RunStore())
    frames = stage(dashboard("samples", run=run.id))["frames"]
    assert frames[0]["same"] == [[]]  # nothing stands before it
    n_written = len(frames[1]["samples"][0]["ids"]) - frames[1]["samples"][0]["prompt"]
    assert frames[2]["same"] == [[[0, 0, n_written]]]  # the fake run writes the same twice


def test_an_epoch_that_is_held_is_compared_with_all_others(home: Path) -> None:
    run = make_run(RunStore())
    app = dashboard("samples", run=run.id)
    app.session_state["theatre"] = {"held": 4}
    held = stage(app.run())["held"]
    assert held["epoch"] == 4
    assert len(held["same"]) == 11
    assert held["same"][4][0][0][:2] == [0, 0]


def test_the_table_holds_every_epoch_with_its_figures(home: Path) -> None:
    run = make_run(RunStore())
    data = table(dashboard("samples", run=run.id))
    columns = [column["name"] for column in data["columns"]]
    assert [row[0] for row in data["rows"]] == ["Before training", *(f"Epoch {n}" for n in range(1, 11))]
    first = dict(zip(columns, data["rows"][0], strict=True))
    assert first["What it wrote"] == TEXTS[0].strip()
    assert (first["Words"], first["Validation loss"]) == ("6", "–")
    assert first["Tokens"] == str(len(get_tokenizer().encode(TEXTS[0])))
    assert data["epochs"] == list(range(11))


def test_what_was_copied_is_marked_with_its_place(home: Path) -> None:
    run = on_a_story()
    app = dashboard("samples", run=run.id)
    first, last = (stage(app)["frames"][at]["samples"][0] for at in (0, -1))
    assert "copied" not in first
    assert all(place == 0 for place in last["copied"])
    (passage,) = last["passages"]
    assert passage["text"] == " She said that the lamp was not hers"
    assert "training part, character" in passage["where"]
    assert "window 1" in passage["where"]
    figures = {name: value for name, value, _ in last["facts"]}
    assert figures["copied"] == "100 %"
    assert figures["longest"] == str(len(last["copied"]))


def test_a_text_that_was_deleted_leaves_everything_but_the_copies(home: Path) -> None:
    run = on_a_story("Nobody has looked for copies in this text before. " * 40)
    shutil.rmtree(home / "corpora")
    app = dashboard("samples", run=run.id)
    assert not app.exception
    assert "copied" not in stage(app)["frames"][-1]["samples"][0]
    assert any("cannot be shown" in warning.value for warning in app.warning)


def test_each_prompt_has_its_sample_in_a_frame(home: Path) -> None:
    prompts = (PROMPT, "<script>alert(1)</script>")
    run = make_run(RunStore(), prompts=prompts)
    app = dashboard("samples", run=run.id)
    assert stage(app)["prompts"] == list(prompts)
    assert read(stage(app), 10, 1) == prompts[1] + TEXTS[-1]
    assert "<script>" not in words(app)


@pytest.mark.parametrize("text", ["", "\n\n\n", "🙂🙂🙂", "\x80"])
def test_odd_samples_are_shown(home: Path, text: str) -> None:
    run = make_run(RunStore(), 1)
    ids = (*get_tokenizer().encode(PROMPT), *(get_tokenizer().encode(text) if text != "\x80" else [222, 223]))
    chances = tuple(None if at < 4 else 0.5 for at in range(len(ids)))
    run.append(Sampled(step=9, epoch=2, prompt=PROMPT, token_ids=ids, text=PROMPT + text, probabilities=chances))
    app = dashboard("samples", run=run.id)
    assert not app.exception
    assert len(stage(app)["frames"][-1]["samples"][0]["ids"]) == len(ids)
    if not text.strip():
        assert table(app)["rows"][-1][1] == "(only white space)"


def test_one_epoch_and_a_run_that_failed_at_once_are_shown(home: Path) -> None:
    one = make_run(RunStore(), 1)
    assert len(stage(dashboard("samples", run=one.id))["frames"]) == 2
    failed = make_run(RunStore(), 3, "failed", until=0, message="The loss of step 0 is not a finite number.")
    app = dashboard("samples", run=failed.id)
    assert [frame["epoch"] for frame in stage(app)["frames"]] == [0]
    assert not app.exception


def test_of_very_many_epochs_some_are_shown_and_any_can_be_asked_for(home: Path) -> None:
    run = make_run(RunStore(), 600, steps_per_epoch=1)
    app = dashboard("samples", run=run.id, epoch="333")
    epochs = [frame["epoch"] for frame in stage(app)["frames"]]
    assert len(epochs) <= 161
    assert {0, 333, 600} <= set(epochs)
    assert stage(app)["asked"] == 333
    app.number_input(key="another-epoch").set_value(555).run()
    assert stage(app)["asked"] == 555


def test_a_live_run_shows_the_epochs_that_are_there(home: Path) -> None:
    run = make_run(RunStore(), status="running")
    with hold(run):
        app = dashboard("samples", run=run.id)
    assert [frame["epoch"] for frame in stage(app)["frames"]] == list(range(6))


def test_a_run_that_wrote_nothing_yet_says_so(home: Path) -> None:
    run = RunStore().create(make_run(RunStore()).config, name="fresh")
    app = dashboard("samples", run=run.id)
    assert not app.exception
    assert "no sample" in words(app)


def test_without_any_run_the_page_says_what_to_do(home: Path) -> None:
    app = dashboard("samples")
    assert "No run yet" in app.info[0].value


def test_the_losses_of_tokens_are_shown_epoch_by_epoch_with_what_they_cost(home: Path) -> None:
    run = make_run(RunStore(), 2)
    watched(run)
    app = dashboard("samples", run=run.id)
    (heat,) = components(app, "heat")
    assert heat["epochs"] == [0, 1, 2]
    assert [row[0] for row in heat["losses"]] == [10.0, 6.0, 2.0]
    assert len(heat["losses"][0]) == len(heat["tokens"]) - 1
    assert "6 looks, 3.00 s in all" in words(app)
    kinds = table(app, "Kinds of token and when they were learnt")
    assert kinds["rows"][0][0] == "punctuation"
    assert kinds["rows"][0][-1] == "epoch 1"
    improved = table(app, "Improved most")
    assert improved["rows"][0][0] == ","
    assert improved["rows"][0][-1] == "-9.90"


def test_two_epochs_can_be_chosen_between_which_tokens_improved(home: Path) -> None:
    run = make_run(RunStore(), 2)
    watched(run)
    app = dashboard("samples", run=run.id)
    app.selectbox(key="changes-from").select(1).run()
    assert table(app, "Improved most")["rows"][0][0] == "lamp"


def test_a_run_that_was_not_watched_says_so(home: Path) -> None:
    app = dashboard("samples", run=make_run(RunStore(), 2, weights=False).id)
    assert "kept no losses of single tokens" in words(app)
    assert "kept no weights" in words(app)


def test_another_passage_is_scored_by_the_saved_models(home: Path) -> None:
    run = on_a_story(weights=False)
    for step in (9, 18):
        checkpoint.save_checkpoint(
            run.path / "checkpoints", small_model(step, vocab_size=50_257, context_length=256), step
        )
    app = dashboard("samples", run=run.id)
    app.radio(key="other.how").set_value("A text of your own").run()
    app.text_area(key="other.text").input("The lamp stood by the window.").run()
    app.button(key="score").click().run()
    give_up = time.monotonic() + 60
    while not components(app, "heat") or len(components(app, "heat")[0]["epochs"]) < 2:
        assert time.monotonic() < give_up
        time.sleep(0.1)
        app.run()
    (heat,) = components(app, "heat")
    assert heat["epochs"] == [1, 2]
    assert len(heat["tokens"]) == len(get_tokenizer().encode("The lamp stood by the window."))
    assert all(8 < loss < 14 for row in heat["losses"] for loss in row)  # untrained models know nothing


def test_commas_are_tokens_but_no_words() -> None:
    assert count_words(continuation(sample(",,,,,,"))) == 0
    assert count_words("he didn't go half-way, did he? 12 miles") == 8


def test_the_prompt_is_told_from_what_was_written_also_where_no_probability_is_known() -> None:
    known = sample(" the lamp")
    unknown = Sampled(epoch=1, prompt=PROMPT, token_ids=known.token_ids, text=known.text)
    assert prompt_length(known) == prompt_length(unknown) == 4
    assert written_ids(unknown) == tuple(get_tokenizer().encode(" the lamp"))


def test_what_two_samples_share_is_found_by_tokens() -> None:
    assert shared((1, 2, 3, 4), (1, 2, 9, 4)) == [(0, 0, 2), (3, 3, 1)]
    assert shared((), (1,)) == []


def test_thinning_keeps_both_ends_and_the_epoch_that_is_wanted() -> None:
    assert thinned(range(5), 10) == [0, 1, 2, 3, 4]
    kept = thinned(range(10_001), 100, 1234)
    assert (kept[0], kept[-1], len(kept)) == (0, 10_000, 101)
    assert 1234 in kept


def test_of_two_samples_of_an_epoch_the_later_one_counts() -> None:
    frames = frames_of([sample(" old"), sample(" new")])
    assert continuation(frames[1][0]) == "new"


def test_the_validation_loss_beside_a_sample_is_the_last_one_before_it(home: Path) -> None:
    log = make_run(RunStore(), 2).log()
    after_first = next(row for row in log.samples if row.epoch == 1)
    assert val_loss_at(log, after_first) == next(row.val_loss for row in log.evaluations if row.step == 5)
    assert val_loss_at(log, log.samples[0]) is None


def test_line_breaks_in_a_sample_become_spaces() -> None:
    assert continuation(sample(" one\n\n two\n")) == "one two"


def test_certainty_is_the_mean_probability_of_what_was_written() -> None:
    assert certainty(sample(" the lamp")) == pytest.approx(0.5)
    assert certainty(Sampled(epoch=1, prompt="a", token_ids=(64,), text="a")) is None


def test_only_weights_of_a_known_epoch_are_scored_and_best_where_there_is_no_other(home: Path) -> None:
    from pages.shared.scoring import kept_epochs

    run = make_run(RunStore(), 3)
    assert [item.epoch for item in kept_epochs(run)] == [1, 2, 3]
    for folder in (run.path / "checkpoints").glob("step-*"):
        shutil.rmtree(folder)
    assert [item.checkpoint.name for item in kept_epochs(run)] == ["best"]
    assert isinstance(run.log().saved[0], Saved)


def test_the_run_that_was_looked_at_is_remembered_on_the_way_over_another_page(home: Path) -> None:
    older, _newer = make_run(RunStore(), name="older"), make_run(RunStore(), name="newer")
    app = dashboard("samples", run=older.id)
    for page in ("training", "samples"):  # the links of the sidebar carry no query string
        app.query_params.clear()
        app.switch_page(f"pages/{page}.py").run()
    assert app.query_params["run"] == older.id


def test_prepared_frames_are_kept_until_there_is_a_new_sample(home: Path) -> None:
    run = make_run(RunStore(), 3)
    log = run.log()
    first = theatre._prepared(run, log, theatre.frames_of(log.samples), None)
    assert theatre._prepared(run, log, theatre.frames_of(log.samples), None) is first
    run.append(replace(log.samples[-1], epoch=4))
    log = run.log()
    again = theatre._prepared(run, log, theatre.frames_of(log.samples), None)
    assert [frame["epoch"] for frame in again["frames"]] == [0, 1, 2, 3, 4]
