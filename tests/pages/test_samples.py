"""The Samples page: the same prompt, epoch after epoch."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptlab.events import Sampled
from gptlab.runs import RunStore
from gptlab.tokenizer import get_tokenizer
from pages.shared.epoch_samples import continuation, count_words, counts
from pages.shared.sample_diff import certainty, compare
from tests.fake_run import PROMPT, TEXTS, hold, make_run
from tests.pages.seen import components, dashboard, strip_text, words


def sample(text: str, epoch: int = 1, prompt: str = PROMPT) -> Sampled:
    encode = get_tokenizer().encode
    head, tail = encode(prompt), encode(text)
    chances = (*(None for _ in head), *(0.5 for _ in tail))
    return Sampled(epoch=epoch, prompt=prompt, token_ids=(*head, *tail), text=prompt + text, probabilities=chances)


def marked(tokens: list[dict], mark: str) -> str:
    return "".join(token["text"] for token in tokens if token.get("mark") == mark)


def test_the_newest_epoch_is_shown_beside_the_one_before(home: Path) -> None:
    run = make_run(RunStore())
    app = dashboard("samples", run=run.id)
    now, then = components(app, "token_strip")[:2]
    assert (now["label"], then["label"]) == ("After epoch 10", "After epoch 9")
    assert strip_text(now) == PROMPT + TEXTS[-1]


def test_the_scrubber_goes_back_to_before_training(home: Path) -> None:
    run = make_run(RunStore())
    app = dashboard("samples", run=run.id)
    app.select_slider(key="epoch-slider").set_value(0).run()
    now = components(app, "token_strip")[0]
    assert now["label"] == "Before training"
    assert strip_text(now) == PROMPT + TEXTS[0]
    assert app.query_params["epoch"] == "0"
    assert app.button(key="previous").disabled


def test_previous_and_next_step_through_the_epochs_and_the_url_follows(home: Path) -> None:
    run = make_run(RunStore())
    app = dashboard("samples", run=run.id)
    assert app.button(key="next").disabled
    app.button(key="previous").click().run()
    app.button(key="previous").click().run()
    assert app.query_params["epoch"] == "8"
    app.button(key="next").click().run()
    app.button(key="next").click().run()
    assert components(app, "token_strip")[0]["label"] == "After epoch 10"
    assert "epoch" not in app.query_params


def test_a_link_opens_an_epoch_and_a_wrong_one_opens_the_newest(home: Path) -> None:
    run = make_run(RunStore())
    assert components(dashboard("samples", run=run.id, epoch="3"), "token_strip")[0]["label"] == "After epoch 3"
    assert components(dashboard("samples", run=run.id, epoch="x<b>"), "token_strip")[0]["label"] == "After epoch 10"


def test_what_differs_from_the_neighbour_is_marked(home: Path) -> None:
    run = make_run(RunStore())
    app = dashboard("samples", run=run.id, epoch="5")
    now, then = components(app, "token_strip")[:2]
    assert marked(now["tokens"], "prompt") == PROMPT
    assert strip_text(now) != strip_text(then)
    assert marked(now["tokens"], "added")
    assert marked(then["tokens"], "removed")


def test_comparing_can_turn_to_the_epoch_after_or_be_off(home: Path) -> None:
    run = make_run(RunStore())
    app = dashboard("samples", run=run.id, epoch="5")
    app.segmented_control(key="against").set_value("after").run()
    assert components(app, "token_strip")[1]["label"] == "After epoch 6"
    app.segmented_control(key="against").set_value("off").run()
    assert not any(token.get("mark") == "added" for token in components(app, "token_strip")[0]["tokens"])


def test_the_table_holds_every_epoch_with_its_tokens_and_words(home: Path) -> None:
    run = make_run(RunStore())
    table = components(dashboard("samples", run=run.id), "text_table")[0]
    assert [row[0] for row in table["rows"]] == ["Before training", *(f"Epoch {n}" for n in range(1, 11))]
    assert table["rows"][0][1] == TEXTS[0].strip()
    assert table["rows"][0][3] == "6"
    assert table["rows"][0][2] == str(len(get_tokenizer().encode(TEXTS[0])))
    assert table["chosen"] == 10


def test_commas_are_tokens_but_no_words() -> None:
    assert counts(sample(",,,,,,")).endswith("0 words")
    assert count_words("he didn't go half-way, did he? 12 miles") == 8


def test_each_prompt_has_its_own_epochs(home: Path) -> None:
    prompts = (PROMPT, "<script>alert(1)</script>")
    run = make_run(RunStore(), prompts=prompts)
    app = dashboard("samples", run=run.id)
    assert app.selectbox(key="prompt").options == list(prompts)
    app.selectbox(key="prompt").select(prompts[1]).run()
    assert marked(components(app, "token_strip")[0]["tokens"], "prompt") == prompts[1]


def test_a_live_run_shows_the_epochs_that_are_there(home: Path) -> None:
    run = make_run(RunStore(), status="running")
    with hold(run):
        app = dashboard("samples", run=run.id)
    assert components(app, "text_table")[0]["chosen"] == 5


def test_a_run_that_wrote_nothing_yet_says_so(home: Path) -> None:
    run = RunStore().create(make_run(RunStore()).config, name="fresh")
    app = dashboard("samples", run=run.id)
    assert not app.exception
    assert "no sample" in words(app)


def test_without_any_run_the_page_says_what_to_do(home: Path) -> None:
    app = dashboard("samples")
    assert "No run yet" in app.info[0].value


def test_a_difference_is_found_by_tokens_and_counted() -> None:
    compared = compare(sample(" the lamp was out"), sample(" the lamp was lit"))
    assert marked(compared.now, "added") == " out"
    assert marked(compared.then, "removed") == " lit"
    assert compared.changed == pytest.approx(1 / 4)


def test_equal_samples_have_no_marks_but_the_prompts() -> None:
    compared = compare(sample(" the lamp"), sample(" the lamp"))
    assert {token.get("mark") for token in compared.now} == {"prompt", None}
    assert compared.changed == 0


def test_line_breaks_in_a_sample_become_spaces() -> None:
    assert continuation(sample(" one\n\n two\n")) == "one two"


def test_certainty_is_the_mean_probability_of_what_was_written() -> None:
    assert certainty(sample(" the lamp")) == pytest.approx(0.5)
    assert certainty(Sampled(epoch=1, prompt="a", token_ids=(64,), text="a")) is None


def test_the_run_that_was_looked_at_is_remembered_on_the_way_over_another_page(home: Path) -> None:
    older, _newer = make_run(RunStore(), name="older"), make_run(RunStore(), name="newer")
    app = dashboard("samples", run=older.id)
    for page in ("training", "samples"):  # the links of the sidebar carry no query string
        app.query_params.clear()
        app.switch_page(f"pages/{page}.py").run()
    assert app.query_params["run"] == older.id
