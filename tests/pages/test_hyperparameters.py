"""The Hyperparameters page: presets, every field, what it amounts to; the impossible is said and nothing is lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from gptlab.config import PRESETS, RunConfig
from gptlab.corpus import add_corpus
from pages.shared import config_form, draft, predicted
from pages.shared.fields import APART, form_fields, held_back, settle

DASHBOARD = str(Path(__file__).resolve().parents[2] / "dashboard.py")
PAGE = "pages/hyperparameters.py"


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configurations whose step was timed; nothing is really timed."""
    asked: list[RunConfig] = []
    monkeypatch.setattr(predicted, "measure_step_seconds", lambda config, timeout: asked.append(config) or 0.1)
    predicted._bench.clear()
    return asked


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_file(DASHBOARD, default_timeout=60)


def opened(page: AppTest) -> AppTest:
    page.run()
    page.switch_page(PAGE).run()
    assert not page.exception
    return page


def timing_is_over() -> None:
    for thread in threading.enumerate():
        if thread.name == "time-a-step":
            thread.join(10)


def plain(text: str) -> str:
    return text.replace("\\", "")


def refusals(page: AppTest) -> str:
    """The red sentences of the form."""
    return plain("\n".join(element.value for element in page.markdown if element.value.startswith(":red[")))


def metrics(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def box(page: AppTest, key: str) -> Any:
    """The input with that key, of whatever kind it is."""
    kinds = (page.number_input, page.text_input, page.selectbox, page.toggle, page.text_area)
    return next(element for kind in kinds for element in kind if element.key == key)


def keys(page: AppTest) -> set[str]:
    kinds = (page.number_input, page.text_input, page.selectbox, page.toggle, page.text_area)
    return {element.key for kind in kinds for element in kind if element.key}


def test_first_visit_has_tiny_chosen_and_one_primary_button(page: AppTest) -> None:
    opened(page)
    assert page.title[0].value == "Hyperparameters"
    assert page.button(key="choose-tiny").disabled
    assert not page.button(key="choose-gpt2-124m").disabled
    assert [button.label for button in page.button if button.proto.type == "primary"] == ["Go to training"]
    assert not draft.draft_path().exists()


def test_reference_exercise_has_its_published_size(page: AppTest, verdict: str) -> None:
    draft.choose_reference_exercise("the-verdict")
    opened(page)
    shown = metrics(page)
    assert (shown["Parameters"], shown["Steps in an epoch"], shown["Steps in all"]) == ("162.4 M", "9", "90")
    assert "162,419,712" in next(metric.help for metric in page.metric if metric.label == "Parameters")
    box(page, "model.tie_weights").set_value(True).run()
    assert "123,822,336" in next(metric.help for metric in page.metric if metric.label == "Parameters")


def test_every_field_of_the_configuration_is_reachable_with_its_help(page: AppTest) -> None:
    opened(page)
    for section, part in RunConfig.model_fields.items():
        for name, info in part.annotation.model_fields.items():
            if (section, name) == ("data", "corpus"):
                continue  # its page is Corpus
            key = "prompt.0" if name == "prompts" else f"{section}.{name}"
            assert key in keys(page)
            if (section, name) not in APART:
                assert plain(box(page, key).help).startswith(info.description)


def test_help_states_typical_values_and_limits() -> None:
    said = form_fields()[("optim", "learning_rate")].help
    assert "Typical: 1e-4 to 4e-3." in said
    assert "above 0, at most 1" in said


def test_choosing_a_preset_fills_the_form(page: AppTest) -> None:
    opened(page)
    page.button(key="choose-small").click().run()
    assert draft.load_draft() == PRESETS["small"]
    assert box(page, "model.emb_dim").value == PRESETS["small"].model.emb_dim
    assert metrics(page)["Parameters"] == "30.5 M"


def test_an_edit_reaches_the_draft_and_the_figures(page: AppTest) -> None:
    opened(page)
    before = metrics(page)["Steps in all"]
    box(page, "train.num_epochs").set_value(20).run()
    assert draft.load_draft() == PRESETS["tiny"].with_fields(train={"num_epochs": 20})
    assert int(metrics(page)["Steps in all"]) == 2 * int(before)


@pytest.mark.parametrize(
    ("key", "typed", "sentence"),
    [
        ("optim.learning_rate", "0", "Learning rate is 0.0: it must be above 0."),
        ("optim.learning_rate", "-0.1", "Learning rate is -0.1: it must be above 0."),
        ("optim.learning_rate", "7", "Learning rate is 7.0: it must be at most 1."),
        ("optim.learning_rate", "nan", "Learning rate is “nan”: it must be a finite number."),
        ("optim.learning_rate", "fast <b>", "Learning rate is “fast <b>”: give a number"),
        ("optim.learning_rate", "", "Learning rate is empty: give a number."),
        ("optim.betas", "0.9", "Betas is “0.9”: give two numbers"),
        ("optim.min_learning_rate", "0.5", "min_learning_rate 0.5 is above learning_rate 0.004"),
        ("data.batch_size", 0, "Batch size is 0: it must be at least 1."),
        ("data.batch_size", -3, "Batch size is -3: it must be at least 1."),
        ("data.train_ratio", "0", "Training share is 0.0: it must be above 0."),
        ("data.train_ratio", "1", "Training share is 1.0: it must be below 1."),
        ("model.context_length", 0, "Context length is 0: it must be at least 1."),
        ("model.n_heads", 5, "emb_dim 96 is not divisible by n_heads 5"),
        ("train.seed", "12.5", "Seed is “12.5”: give a whole number"),
    ],
)
def test_impossible_value_is_a_sentence_and_nothing_is_lost(page: AppTest, key: str, typed: Any, sentence: str) -> None:
    opened(page)
    box(page, key).set_value(typed).run()
    assert not page.exception
    assert sentence in refusals(page)
    assert box(page, key).value == typed
    assert draft.load_draft() == PRESETS["tiny"]


@pytest.mark.parametrize("edit", ["field", "preset", "device", "name"])
def test_an_edit_that_a_full_disk_refuses_is_a_sentence(
    page: AppTest, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    opened(page)
    write = draft.write_atomically
    monkeypatch.setattr(draft, "write_atomically", full)
    if edit == "field":
        box(page, "train.num_epochs").set_value(20).run()
    elif edit == "preset":
        page.button(key="choose-small").click().run()
    elif edit == "device":
        box(page, "train.device").set_value("cpu").run()
    else:
        box(page, "run.name").set_value("first try").run()
    assert not page.exception
    assert "could not be saved (No space left on device)" in plain(page.error[0].value)
    assert box(page, "train.num_epochs").value == 10
    assert (draft.load_draft(), draft.draft_name()) == (PRESETS["tiny"], "")
    page.run()
    assert page.error  # the page runs again by itself, when a step was timed
    monkeypatch.setattr(draft, "write_atomically", write)
    box(page, "train.num_epochs").set_value(20).run()
    assert not page.error


def test_possible_edit_is_taken_while_another_is_held_back(page: AppTest) -> None:
    opened(page)
    box(page, "optim.learning_rate").set_value("nan").run()
    box(page, "train.num_epochs").set_value(3).run()
    assert draft.load_draft() == PRESETS["tiny"].with_fields(train={"num_epochs": 3})
    assert box(page, "optim.learning_rate").value == "nan"
    assert "finite number" in refusals(page)


def test_width_and_heads_that_only_fit_together_both_come_through(page: AppTest) -> None:
    opened(page)
    box(page, "model.emb_dim").set_value(98).run()
    assert "emb_dim 98 is not divisible by n_heads 4" in refusals(page)
    box(page, "model.n_heads").set_value(7).run()  # 98 is divisible by 7, 96 is not
    assert (draft.load_draft().model.emb_dim, draft.load_draft().model.n_heads) == (98, 7)
    assert not refusals(page)


def test_a_changed_field_goes_back_to_the_preset_alone(page: AppTest) -> None:
    opened(page)
    box(page, "train.num_epochs").set_value(3).run()
    box(page, "model.n_layers").set_value(5).run()
    page.button(key="reset.train.num_epochs").click().run()
    assert draft.load_draft() == PRESETS["tiny"].with_fields(model={"n_layers": 5})
    assert box(page, "train.num_epochs").value == 10
    assert "reset.train.num_epochs" not in {button.key for button in page.button}
    page.button(key="reset-all").click().run()
    assert draft.load_draft() == PRESETS["tiny"]


def test_a_refused_input_goes_back_too(page: AppTest) -> None:
    opened(page)
    box(page, "optim.learning_rate").set_value("nan").run()
    page.button(key="reset.optim.learning_rate").click().run()
    assert box(page, "optim.learning_rate").value == "0.004"
    assert not refusals(page)


def test_values_are_there_again_after_a_visit_elsewhere(page: AppTest) -> None:
    opened(page)
    box(page, "optim.learning_rate").set_value("3e-3").run()
    page.switch_page("pages/corpus.py").run()
    page.switch_page(PAGE).run()
    assert float(box(page, "optim.learning_rate").value) == 0.003


def test_another_tab_s_edit_is_shown_and_not_undone(page: AppTest) -> None:
    opened(page)
    draft.edit_draft(model={"n_layers": 7})
    box(page, "train.num_epochs").set_value(3).run()
    assert box(page, "model.n_layers").value == 7
    assert draft.load_draft() == PRESETS["tiny"].with_fields(model={"n_layers": 7}, train={"num_epochs": 3})


def test_prompts_go_to_the_draft_without_the_empty_rows(page: AppTest) -> None:
    opened(page)
    box(page, "prompt.2").set_value("Once <b>upon</b>").run()
    assert draft.load_draft().train.prompts == ("Every effort moves you", "Once <b>upon</b>")
    box(page, "prompt.0").set_value("").run()
    assert draft.load_draft().train.prompts == ("Once <b>upon</b>",)


def test_no_prompt_at_all_is_refused(page: AppTest) -> None:
    opened(page)
    box(page, "prompt.0").set_value("  ").run()
    assert "Every prompt is empty" in refusals(page)
    assert draft.load_draft() == PRESETS["tiny"]


def test_prompt_given_twice_is_refused_and_kept_as_typed(page: AppTest) -> None:
    opened(page)
    box(page, "prompt.1").set_value("Every effort moves you").run()
    assert "Two prompts are the same" in refusals(page)
    assert box(page, "prompt.1").value == "Every effort moves you"
    assert draft.load_draft() == PRESETS["tiny"]


def test_prompt_longer_than_the_context_is_explained(page: AppTest) -> None:
    draft.edit_draft(model={"context_length": 4}, train={"prompts": ("one two three four five six",)})
    opened(page)
    assert any("only its last 4 are read" in plain(element.value) for element in page.markdown)


def test_device_picker_shows_only_what_is_there(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptlab.device import DeviceInfo

    here = [DeviceInfo("cuda:0", "Some GPU", 10**12), DeviceInfo("cpu", "CPU, 2 cores", 10**12)]
    monkeypatch.setattr(config_form, "available_devices", lambda: here)
    opened(page)
    assert box(page, "train.device").options == ["Automatic: Some GPU", "Some GPU", "CPU, 2 cores"]
    box(page, "train.device").set_value("cpu").run()
    assert draft.load_draft().train.device == "cpu"


def test_device_of_another_machine_is_named_as_missing(page: AppTest) -> None:
    draft.edit_draft(train={"device": "cuda:7"})
    opened(page)
    assert "There is no device cuda:7 on this machine" in refusals(page)
    assert draft.load_draft().train.device == "cuda:7"


def test_run_name_goes_to_the_draft(page: AppTest) -> None:
    opened(page)
    box(page, "run.name").set_value("../<b>first</b>").run()
    assert draft.draft_name() == "../<b>first</b>"


def test_run_name_too_long_is_refused_and_kept_as_typed(page: AppTest) -> None:
    opened(page)
    box(page, "run.name").set_value("x" * 300).run()
    assert "300 characters" in refusals(page)
    assert box(page, "run.name").value == "x" * 300
    assert draft.draft_name() == ""


def upload(page: AppTest, text: str) -> None:
    page.file_uploader[0].set_value(("mine.json", text.encode(), "application/json")).run()
    assert not page.exception


def test_loaded_file_becomes_the_draft(page: AppTest) -> None:
    opened(page)
    wanted = PRESETS["small"].with_fields(optim={"schedule": "cosine", "warmup_steps": 5})
    upload(page, wanted.to_json())
    assert draft.load_draft() == wanted
    assert box(page, "optim.schedule").value == "cosine"
    box(page, "train.num_epochs").set_value(3).run()  # the file is not taken a second time
    assert draft.load_draft() == wanted.with_fields(train={"num_epochs": 3})


def test_loaded_file_whose_text_is_not_here_keeps_the_chosen_one(page: AppTest) -> None:
    opened(page)
    upload(page, PRESETS["small"].with_fields(data={"corpus": "sha256:" + "0" * 64}).to_json())
    assert draft.load_draft() == PRESETS["small"]
    assert any("Its text is not here" in plain(element.value) for element in page.success)


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ("", ["not valid JSON"]),
        ("{", ["not valid JSON"]),
        (json.dumps({"model": {"width": 3}}), ["There is no field model.width"]),
        (json.dumps({"optim": {"learning_rate": 0}, "data": {"train_ratio": 1}}), ["learning_rate", "train_ratio"]),
    ],
)
def test_faulty_file_is_explained_and_changes_nothing(page: AppTest, content: str, sentences: list[str]) -> None:
    opened(page)
    upload(page, content)
    said = plain(page.error[0].value)
    assert "nothing has changed" in said
    assert [sentence for sentence in sentences if sentence not in said] == []
    assert draft.load_draft() == PRESETS["tiny"]


def test_configuration_can_be_saved_as_a_file(page: AppTest) -> None:
    opened(page)
    assert "Save as a file" in [button.label for button in page.download_button]


def test_step_of_a_small_model_is_timed_unasked(page: AppTest, timed: list[RunConfig]) -> None:
    opened(page)
    timing_is_over()
    assert {config.model for config in timed} == {PRESETS["tiny"].model}


def test_step_of_a_large_model_is_timed_only_when_asked(page: AppTest, timed: list[RunConfig]) -> None:
    draft.choose_preset("gpt2-124m")
    opened(page)
    assert timed == []
    assert metrics(page)["Time"] == "–"
    page.button(key="time-a-step").click().run()
    timing_is_over()
    assert [config.model for config in timed] == [PRESETS["gpt2-124m"].model]


def test_why_a_step_could_not_be_timed_is_said(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: RunConfig, timeout: float) -> float:
        raise ValueError("A step needs about 9.0 GB of memory: lower batch_size.")

    monkeypatch.setattr(predicted, "measure_step_seconds", fail)
    draft.choose_preset("gpt2-124m")
    opened(page)
    page.button(key="time-a-step").click().run()
    timing_is_over()
    page.run()
    assert any("9.0 GB of memory" in plain(element.value) for element in page.caption)


def test_known_time_is_shown(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicted, "predicted_seconds", lambda config, n_train, n_val: 185.0)
    opened(page)
    assert metrics(page)["Time"] == "≈ 3 min 05 s"
    assert any("about 3 min 05 s here" in element.value for element in page.markdown)


def test_text_too_short_is_said_with_a_remedy(page: AppTest) -> None:
    draft.choose_corpus(add_corpus("short.txt", "A short text with a few words. " * 6).reference)
    config = draft.load_draft()
    opened(page)
    assert "The training part has" in plain(page.error[0].value)
    remedy = next(button for button in page.button if button.label.startswith("Use context length"))
    remedy.click().run()
    length = int(remedy.label.split()[-1])
    assert draft.load_draft() == config.with_fields(model={"context_length": length})
    assert box(page, "model.context_length").value == length
    assert not page.error


def test_absurd_learning_rate_is_allowed_with_a_warning(page: AppTest) -> None:
    opened(page)
    box(page, "optim.learning_rate").set_value("0.9").run()
    assert draft.load_draft().optim.learning_rate == 0.9
    assert any("far above the usual" in plain(element.value) for element in page.warning)


def test_model_too_large_for_the_memory_is_warned_of_and_allowed(page: AppTest) -> None:
    opened(page)
    box(page, "data.batch_size").set_value(60_000).run()
    assert draft.load_draft().data.batch_size == 60_000
    assert any("of memory, and" in plain(element.value) for element in page.warning)


def test_settling_nothing_changes_nothing() -> None:
    config = PRESETS["small"]
    typed = {place: field.shown(field.of(config)) for place, field in form_fields().items()}
    assert settle(config, typed) == (config, {})
    assert held_back(config, typed) == {}


def test_settling_takes_what_it_can() -> None:
    config, refused = settle(
        PRESETS["tiny"],
        {("model", "n_heads"): 5, ("model", "drop_rate"): "0.2", ("optim", "betas"): "0.8 0.9", ("data", "stride"): 0},
    )
    assert config == PRESETS["tiny"].with_fields(model={"drop_rate": 0.2}, optim={"betas": (0.8, 0.9)})
    assert set(refused) == {("model", "n_heads"), ("data", "stride")}
