"""The Playground's sections, its state in the address, the chain of a token and the lessons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from gptlab import inspection, sampling
from gptlab.checkpoint import load_model, save_best, save_checkpoint
from gptlab.config import SamplingConfig
from gptlab.corpus import open_corpus
from gptlab.dataset import GPTDataset
from gptlab.inspection import attention_maps
from gptlab.model import GPTModel
from gptlab.runs import Run, RunStore
from gptlab.tokenizer import get_tokenizer
from pages.shared import inside, lessons
from pages.shared.attention_map import THUMBNAIL, thumbnails
from pages.shared.chain_places import found_in
from pages.shared.continuations import MOST_BRANCHES, Tree, put
from pages.shared.decoding import MOST_NEW_TOKENS, PRESETS
from pages.shared.generation import Generation, Prompt
from pages.shared.time_machine import mark_differences
from tests.fake_run import make_run
from tests.pages.seen import buttons, components, dashboard, primary, words
from tests.small_models import run_config, small_model

CONFIG = run_config(model={"vocab_size": 50_257, "context_length": 16}, train={"prompts": ["Every effort moves you"]})


@pytest.fixture
def run(home: Path) -> Run:
    """A finished run with real weights of a tiny model: another one for each checkpoint."""
    run = make_run(RunStore(), 2, name="little", config=CONFIG)
    folder = run.path / "checkpoints"
    for seed, item in enumerate(run.checkpoints()):
        torch.manual_seed(seed)
        model = GPTModel(CONFIG.model)
        save_best(folder, model, item.step) if item.name == "best" else save_checkpoint(folder, model, item.step)
    return run


def bars(app: AppTest, label: str) -> list[dict]:
    return next(data["rows"] for data in components(app, "token_bars") if label in data["label"])


# The state in the address


def test_a_link_restores_prompt_controls_and_view(run: Run) -> None:
    app = dashboard(
        "playground", run=run.id, prompt="Once upon", temperature="0.8", top_k="5", samples="3", view="write"
    )
    assert not app.exception
    assert app.text_area(key="playground.prompt").value == "Once upon"
    assert app.slider(key="playground.temperature").value == 0.8
    assert app.number_input(key="playground.top_k").value == 5
    assert app.number_input(key="playground.samples").value == 3
    app = dashboard("playground", run=run.id, view="score", text="A river, a book", against="text", text_b="Another")
    assert [area.value for area in app.text_area] == ["A river, a book", "Another"]


def test_what_differs_from_the_defaults_stands_in_the_address_and_leaves_it_again(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    assert "temperature" not in app.query_params
    app.slider(key="playground.temperature").set_value(1.25).run()
    app.text_area(key="playground.prompt").set_value("A lamp").run()
    assert (app.query_params["temperature"], app.query_params["prompt"]) == ("1.25", "A lamp")
    app.slider(key="playground.temperature").set_value(0.0).run()
    assert "temperature" not in app.query_params


def test_values_in_a_link_that_make_no_sense_are_as_good_as_not_there_and_that_is_said(run: Run) -> None:
    link = {"temperature": "hot", "top_p": "7", "new_tokens": "1000000", "view": "<script>", "head": "x", "seed": "5"}
    app = dashboard("playground", run=run.id, **link)
    assert not app.exception
    said = [toast.value.replace("\\", "") for toast in app.toast]
    most = f"1000000 is not from 1 to {MOST_NEW_TOKENS:,}"
    assert f"The link’s value of new tokens is left out: {most}. 50 stands instead." in said
    assert "The link’s value of top p is left out: 7 is not from 0.0 to 1.0." in said
    assert "The link’s value of temperature is left out: 'hot' is no number. 0 stands instead." in said
    assert len(said) == 5
    assert app.number_input(key="playground.seed").value == 5
    assert app.slider(key="playground.temperature").value == 0
    assert app.number_input(key="playground.top_p").value is None
    assert app.number_input(key="playground.max_new_tokens").value == 50


def test_a_text_too_long_for_an_address_is_left_out_of_it_and_that_is_said(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    app.text_area(key="playground.prompt").set_value("word " * 600).run()
    assert "prompt" not in app.query_params
    assert "too long for an address" in words(app)


# The laboratory


def test_a_preset_sets_the_controls_and_moving_one_leaves_it(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    app.button_group(key="playground.preset").set_value("wild").run()
    assert app.slider(key="playground.temperature").value == PRESETS["wild"]["temperature"]
    assert app.number_input(key="playground.min_p").value == PRESETS["wild"]["min_p"]
    app.slider(key="playground.temperature").set_value(0.5).run()
    assert "Settings of your own" in words(app)


def test_a_control_redraws_the_bars_without_asking_the_model_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = inspection.next_token_distribution
    monkeypatch.setattr(inspection, "next_token_distribution", lambda *a, **b: (asked.append(a), real(*a, **b))[1])
    app = dashboard("playground", run=run.id, prompt="A lamp that nobody lit", temperature="1")
    before = bars(app, "likeliest next tokens")
    assert all(row["p"] == pytest.approx(row["before"], rel=1e-4) for row in before)
    app.number_input(key="playground.top_k").set_value(3).run()
    after = bars(app, "likeliest next tokens")
    assert [row["p"] > 0 for row in after] == [True] * 3 + [False] * (len(after) - 3)
    assert sum(row["p"] for row in after) == pytest.approx(1)
    assert "3 of 50,257 tokens can be drawn" in words(app)
    assert len(asked) == 1


def test_several_samples_differ_by_their_seeds(run: Run) -> None:
    app = dashboard("playground", run=run.id, temperature="1.5", seed="4", samples="3", new_tokens="5")
    buttons(app)["Generate"].click()
    app.run()
    app.session_state["playground.answer"].wait()
    app.run()
    model, ids = load_model(run.checkpoint("last").path), get_tokenizer().encode("Every effort moves you")
    written = [[t.id for t in text] for text in app.session_state["playground.answer"].texts]
    wanted = [
        list(sampling.generate(model, ids, SamplingConfig(temperature=1.5, seed=4 + n, max_new_tokens=5)))
        for n in range(3)
    ]
    assert written == wanted
    assert "Sample 3, seed 6" in words(app)


def test_each_line_can_be_a_prompt_of_its_own(run: Run) -> None:
    app = dashboard("playground", run=run.id, prompt="One\n\nTwo lamps", lines="1", new_tokens="3")
    buttons(app)["Generate"].click()
    app.run()
    generation = app.session_state["playground.answer"]
    generation.wait()
    assert [list(prompt.ids) for prompt in generation.prompts] == [
        get_tokenizer().encode(line) for line in ("One", "Two lamps")
    ]
    assert [len(text) for text in generation.texts] == [3, 3]


def test_continue_goes_on_from_the_end_and_can_be_walked_back(run: Run) -> None:
    app = dashboard("playground", run=run.id, new_tokens="4")
    buttons(app)["Generate"].click()
    app.run()
    first = app.session_state["playground.answer"]
    first.wait()
    app.run()
    buttons(app)["Continue"].click()
    app.run()
    second = app.session_state["playground.answer"]
    second.wait()
    app.run()
    assert [t.id for t in second.tokens[:4]] == [t.id for t in first.tokens]
    assert len(second.tokens) == 8
    app.radio(key="playground.branch").set_value(1).run()
    assert app.session_state["playground.tree"].current.generation is first


def test_beam_search_gives_its_beams_the_likeliest_first() -> None:
    model = small_model(vocab_size=50_257)
    generation = Generation(lambda: model, Prompt((1, 2)), SamplingConfig(max_new_tokens=4), beams=3).start()
    generation.wait()
    assert generation.state == "done", generation.fault
    chances = [np.prod([token.probability for token in text]) for text in generation.texts]
    assert len(chances) == 3
    assert chances == sorted(chances, reverse=True)


def test_an_alternative_replaces_its_token_and_keeps_what_stood_before() -> None:
    model = small_model(vocab_size=50_257)
    tokens = list(sampling.generate_steps(model, [1, 2], SamplingConfig(max_new_tokens=5)))
    other = tokens[3].alternatives[2][0]
    kept = put(tokens, 3, other)
    assert [token.id for token in kept] == [*(token.id for token in tokens[:3]), other]
    assert kept[3].probability == tokens[3].alternatives[2][1]
    generation = Generation(lambda: model, Prompt((1, 2)), SamplingConfig(max_new_tokens=2), kept=kept).start()
    generation.wait()
    wanted = list(sampling.generate(model, [1, 2, *(t.id for t in kept)], SamplingConfig(max_new_tokens=2)))
    assert [token.id for token in generation.tokens[4:]] == wanted


def test_a_tree_stays_small_and_keeps_the_way_back() -> None:
    def idle() -> Generation:
        return Generation(lambda: small_model(), Prompt((1,)), SamplingConfig(max_new_tokens=1))

    tree = Tree()
    tree.begin(idle())
    root = tree.at
    for place in range(2 * MOST_BRANCHES):
        tree.go_to(root)
        tree.grow(idle(), place)
    assert len(tree.branches) == MOST_BRANCHES
    assert tree.in_order()[0].id == root
    assert tree.branches[-1].place == 2 * MOST_BRANCHES - 1


# The time machine


def test_two_epochs_write_with_the_same_seed(run: Run) -> None:
    app = dashboard(
        "playground", run=run.id, view="compare", temperature="0.9", b_checkpoint="step-000009", b_temperature="0.9"
    )
    assert primary(app) == ["Write both"]
    buttons(app)["Write both"].click()
    app.run()
    pair = app.session_state["playground.pair"]
    for generation in pair:
        generation.wait()
    app.run()
    assert not app.exception
    assert pair[0].sampling.seed == pair[1].sampling.seed
    ids = get_tokenizer().encode("Every effort moves you")
    for generation, name in zip(pair, ("last", "step-000009"), strict=True):
        model = load_model(run.checkpoint(name).path)
        assert [t.id for t in generation.tokens] == list(sampling.generate(model, ids, generation.sampling))
    assert [row["id"] for row in bars(app, "as A sees")] == [row["id"] for row in bars(app, "as B sees")]


def test_differences_are_marked_on_both_sides() -> None:
    ours, theirs = ([{"id": i} for i in ids] for ids in ([1, 2, 3], [1, 9, 3, 4]))
    mark_differences(ours, theirs)
    assert [token.get("mark") for token in ours] == [None, "added", None]
    assert [token.get("mark") for token in theirs] == [None, "removed", None, "removed"]


# Inside


def test_inside_shows_only_the_panels_asked_for(run: Run) -> None:
    app = dashboard("playground", run=run.id, view="inside", panels="layers.next", prompt="A lamp")
    assert not app.exception
    assert components(app, "attention_map") == []
    (lens,) = components(app, "lens_table")
    assert lens["columns"] == ["A", " lamp"]
    assert [row["name"] for row in lens["rows"]] == ["layer 2", "layer 1", "embedding"]
    assert lens["rows"][0]["cells"][-1][0] == bars(app, "20 likeliest")[0]["text"]  # the last layer is the answer


def test_of_a_long_text_the_layers_are_asked_at_the_places_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "LENS_PLACES", 4)
    app = dashboard("playground", run=run.id, view="inside", panels="layers", prompt="A lamp was lit by the old river")
    whole = ["A", " lamp", " was", " lit", " by", " the", " old", " river"]
    (lens,) = components(app, "lens_table")
    assert (lens["columns"], lens["next"]) == (whole[4:], [*whole[5:], ""])  # first where the text ends
    app.slider(key="playground.lens_from").set_value(2).run()
    (lens,) = components(app, "lens_table")
    assert (lens["columns"], lens["next"]) == (whole[1:5], whole[2:6])
    assert all(len(row["cells"]) == 4 for row in lens["rows"])
    assert app.query_params["lens_from"] == "2"
    app.text_area(key="playground.prompt").set_value("A lamp was").run()
    (lens,) = components(app, "lens_table")
    assert lens["columns"] == whole[:3]


def test_attention_of_a_long_prompt_is_that_of_its_end(run: Run) -> None:
    app = dashboard("playground", run=run.id, view="inside", prompt=" a" * 20, head="2.1")
    (shown,) = components(app, "attention_map")
    assert (shown["layers"], shown["heads"], len(shown["tokens"]), shown["chosen"]) == (2, 2, 16, [1, 0])
    assert "the first 4 do not fit into its context" in words(app)


def test_thumbnails_keep_the_strongest_attention() -> None:
    model = small_model(context_length=128)
    weights = attention_maps(model, list(range(50)) * 2).numpy()
    small = thumbnails(weights)
    assert small.shape == (2, 3, THUMBNAIL, THUMBNAIL)
    assert small.max() == round(255 * float(weights.max()))


# Score and quiz


def test_the_same_text_is_compared_at_two_epochs(run: Run) -> None:
    app = dashboard("playground", run=run.id, view="score", against="epoch", text="A lamp in the window")
    assert not app.exception
    assert len([metric for metric in app.metric if metric.label == "Perplexity"]) == 2
    assert "bits a character against" in words(app) or "the same number of bits" in words(app)


def test_the_quiz_shows_every_epochs_guess_after_the_persons(run: Run) -> None:
    app = dashboard("playground", run=run.id, view="quiz", quiz="77")
    assert components(app, "text_table") == []
    app.text_input[0].set_value("nonsense")
    buttons(app)["Reveal"].click()
    app.run()
    (table,) = components(app, "text_table")
    assert [row[0] for row in table["rows"]] == ["epoch 1", "epoch 2"]
    assert "You: 0 of 1 right." in words(app)


# The chain of one token


def test_a_token_in_the_address_opens_its_chain_on_any_page(run: Run) -> None:
    for page in ("corpus", "samples", "playground"):
        app = dashboard(page, run=run.id, token="7850")
        assert not app.exception
        merges = next(data for data in components(app, "text_table") if data["label"] == "Merges")
        assert merges["rows"][-1][1].endswith("→  ·river")
        assert "37 times in the training part" in words(app)


def test_a_tokens_place_is_read_as_in_training_where_a_window_holds_it() -> None:
    corpus = open_corpus("builtin")
    for changes in ({}, {"stride": 5}, {"stride": 40}):
        config = CONFIG.with_fields(data={"corpus": "builtin", **changes})
        length = config.model.context_length
        windows = GPTDataset(
            torch.as_tensor(corpus.split_ids(config.data.train_ratio)[0].copy()), length, config.stride
        )
        found = found_in(corpus, config, 7850)
        for place, (part, index) in enumerate(found.places):
            if part != "training":
                continue
            inside = [start for start in windows.starts if start < index <= start + length]
            begin = min(inside, default=max(0, index - length))  # of several windows the one with most before it
            assert found.before(place) == tuple(found.parts[part][begin:index].tolist())
            assert ("as in training" in found.manner(place)) is bool(inside)
            assert found.passage(place)[-1] == 7850


def test_of_a_tokens_places_the_one_that_was_pressed_is_shown(run: Run) -> None:
    config = run.config
    train, val = open_corpus(config.data.corpus).split_ids(config.data.train_ratio)
    there = [(part, int(place)) for part in (train, val) for place in np.flatnonzero(part == 7850)]
    for chosen in (5, len(there) - 1):  # one of the training part, the last of the validation part
        part, place = there[chosen]
        after = ".".join(map(str, part[place - 12 : place]))
        app = dashboard("corpus", run=run.id, token="7850", after=after)
        assert app.number_input(key="chain.place").value == chosen + 1
        assert "The same text stands before it here as where you pressed." in words(app)
    app = dashboard("corpus", run=run.id, token="7850", after=f"1.2.{train[there[3][1] - 1]}")
    assert "same here as where you pressed; no other place is more like it." in words(app)
    app.number_input(key="chain.place").set_value(2).run()
    assert "as where you pressed" not in words(app)
    for nonsense in ("x", "1..2", "9" * 30, "99999999"):
        app = dashboard("corpus", run=run.id, token="7850", after=nonsense)
        assert not app.exception
        assert app.number_input(key="chain.place").value == 1


@pytest.mark.parametrize("token", ["50257", "-1", "river", "<b>"])
def test_a_token_that_does_not_exist_is_said_and_the_page_stays(run: Run, token: str) -> None:
    app = dashboard("playground", run=run.id, token=token)
    assert not app.exception
    assert "There is no token" in app.toast[0].value
    assert "token" not in app.query_params


# Lessons


@pytest.mark.parametrize("name", [lesson.name for lesson in lessons.LESSONS])
def test_each_lesson_asks_something_that_its_scene_answers(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessons, "find_lesson_run", lambda store: run)
    app = dashboard("playground", lesson=name)
    assert not app.exception
    assert not app.error
    assert [button for button in app.button if button.label == "Generate"] == []  # nothing but the lesson
    question = next(radio for radio in app.radio if radio.key == f"lesson.{name}.answer")
    verdicts = []
    for option in question.options:
        app.radio(key=f"lesson.{name}.answer").set_value(option).run()
        verdicts.append(bool(app.success))
    assert verdicts.count(True) == 1


def test_without_its_model_a_lesson_offers_to_train_it(home: Path) -> None:
    app = dashboard("playground", lesson="loss")
    assert not app.exception
    assert primary(app) == ["Train the small model"]
