"""The Playground: a saved model continues a prompt; what it reads, what it says, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

from gptlab import sampling
from gptlab.checkpoint import load_model, save_best, save_checkpoint
from gptlab.config import ModelConfig, SamplingConfig
from gptlab.events import Saved
from gptlab.model import GPTModel
from gptlab.runs import Run, RunStore
from gptlab.tokenizer import get_tokenizer
from pages.shared import model_cache
from pages.shared.decoding import in_words
from pages.shared.generation import Generation, Prompt, alternative_pieces, read_prompt
from pages.shared.token_strip import tokens_of
from tests.fake_run import hold, make_run
from tests.pages.seen import buttons, components, dashboard, primary, strip_text, words
from tests.small_models import run_config, small_model

PROMPT = "Every effort moves you"
CONFIG = run_config(model={"vocab_size": 50_257}, train={"prompts": [PROMPT]})  # it reads whole words


def model_of(seed: int) -> GPTModel:
    torch.manual_seed(seed)
    return GPTModel(CONFIG.model)


@pytest.fixture
def run(home: Path) -> Run:
    """A finished run with real weights of a tiny model: another one for each checkpoint."""
    run = make_run(RunStore(), 2, name="little *one*", config=CONFIG)
    folder = run.path / "checkpoints"
    for seed, item in enumerate(run.checkpoints()):
        if item.name == "best":
            save_best(folder, model_of(seed), item.step)
        else:
            save_checkpoint(folder, model_of(seed), item.step)
    return run


def generated(app: AppTest) -> AppTest:
    """Press Generate and wait for the end of the answer."""
    buttons(app)["Generate"].click()
    app.run()
    app.session_state["playground.answer"].wait()
    return app.run()


def answer(app: AppTest) -> list[dict]:
    strip = next(data for data in components(app, "token_strip") if data["label"].startswith("The answer"))
    return strip["tokens"]


def ids_of(tokens: list[dict]) -> list[int]:
    return [token["id"] for token in tokens]


def expected(run: Run, checkpoint: str, prompt: str, chosen: SamplingConfig) -> list[int]:
    ids = get_tokenizer().encode(prompt)
    return [*ids, *sampling.generate(load_model(run.checkpoint(checkpoint).path), ids, chosen)]


def test_generate_continues_the_prompt_with_the_chosen_weights(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    assert not app.exception
    assert primary(app) == ["Generate"]
    generated(app)
    assert ids_of(answer(app)) == expected(run, "last", PROMPT, SamplingConfig())
    app.selectbox(key="playground.checkpoint").select("step-000009").run()
    assert app.query_params["checkpoint"] == "step-000009"
    assert ids_of(answer(app)) == expected(run, "last", PROMPT, SamplingConfig())  # the last answer stays meanwhile
    generated(app)
    assert ids_of(answer(app)) == expected(run, "step-000009", PROMPT, SamplingConfig())
    assert "after 9 steps" in words(app).replace("\\", "")


def test_each_token_of_the_answer_tells_its_probability_and_what_else_was_likely(run: Run) -> None:
    app = generated(dashboard("playground", run=run.id))
    tokens = answer(app)
    assert [token.get("mark") for token in tokens[:4]] == ["prompt"] * 4
    for token in tokens[4:]:
        assert 0 < token["p"] <= 1
        assert len(token["alternatives"]) == 10
        assert token["alternatives"][0] == [token["text"], pytest.approx(token["p"])]  # greedy: the likeliest


def test_the_decoding_controls_are_what_is_used(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    assert app.number_input(key="playground.top_k").disabled  # greedy: it would change nothing
    app.number_input(key="playground.max_new_tokens").set_value(7)
    app.slider(key="playground.temperature").set_value(1.5).run()
    app.number_input(key="playground.top_k").set_value(40)
    app.number_input(key="playground.top_p").set_value(0.9)
    app.number_input(key="playground.repetition_penalty").set_value(1.3)
    app.number_input(key="playground.seed").set_value(5)
    generated(app)
    chosen = SamplingConfig(max_new_tokens=7, temperature=1.5, top_k=40, top_p=0.9, repetition_penalty=1.3, seed=5)
    assert ids_of(answer(app)) == expected(run, "last", PROMPT, chosen)
    assert in_words(chosen) == "temperature 1.5, top k 40, top p 0.9, seed 5, repetition penalty 1.3"
    assert in_words(chosen) in words(app)


def test_every_control_explains_itself(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    for name, field in SamplingConfig.model_fields.items():
        control = next(
            item
            for item in (*app.number_input, *app.slider, *app.toggle)
            if item.key == f"playground.{name}"
        )  # fmt: skip
        assert str(field.description).replace("<|", r"\<|").replace("|>", r"|\>") in control.help


def test_the_prompt_is_taken_as_it_stands_when_generate_is_pressed(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    app.text_area(key="playground.prompt").set_value("Once upon")
    generated(app)  # typed and pressed at once: no rerun in between
    assert strip_text({"tokens": answer(app)[:2]}) == "Once upon"


def test_an_empty_prompt_starts_from_the_end_of_text_and_says_so(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    app.text_area(key="playground.prompt").set_value("").run()
    assert "starts from <|endoftext|>" in words(app).replace("\\", "")
    generated(app)
    assert ids_of(answer(app))[0] == 50256
    assert len(answer(app)) == 51


def test_a_prompt_longer_than_the_context_says_how_much_is_dropped(run: Run) -> None:
    app = dashboard("playground", run=run.id)
    app.text_area(key="playground.prompt").set_value("a b c d e f g h i j k").run()
    assert "11 tokens, more than this model's context of 8: the first 3 are dropped." in words(app)
    strip = next(data for data in components(app, "token_strip") if data["label"] == "The prompt as tokens")
    assert [token.get("mark") for token in strip["tokens"]] == ["removed"] * 3 + [None] * 8
    generated(app)
    assert ids_of(answer(app)) == expected(run, "last", "a b c d e f g h i j k", SamplingConfig())


@pytest.mark.parametrize("prompt", ["<script>alert(1)</script>", "你好，世界", "🙂🙃", "**bold** $x$ :red[a]"])
def test_any_text_is_read_and_shown_as_text(run: Run, prompt: str) -> None:
    app = dashboard("playground", run=run.id)
    app.text_area(key="playground.prompt").set_value(prompt)
    generated(app)
    assert not app.exception
    assert app.code[0].value.startswith(prompt)  # what is there to copy
    assert "alert" not in words(app).replace(app.code[0].value, "")


def test_a_runs_name_is_shown_as_text(run: Run) -> None:
    assert r"little \*one\*" in "\n".join(item.value for item in generated(dashboard("playground", run=run.id)).caption)


def test_stop_ends_the_answer_and_keeps_what_was_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    steps = sampling.generate_steps

    def slow(*arguments: object, **options: object) -> Iterator[object]:
        for number, token in enumerate(steps(*arguments, **options)):  # type: ignore[arg-type]
            if number == 2:
                go_on.wait()
            yield token

    monkeypatch.setattr(sampling, "generate_steps", slow)
    app = dashboard("playground", run=run.id)
    buttons(app)["Generate"].click()
    app.run()
    assert buttons(app)["Generate"].disabled
    assert "50 tokens" in words(app)
    buttons(app)["Stop"].click()
    app.run()
    go_on.set()
    app.session_state["playground.answer"].wait()
    app.run()
    assert "stopped after 3 tokens" in words(app)
    assert len(answer(app)) == 4 + 3
    assert not buttons(app)["Generate"].disabled
    assert buttons(app)["Stop"].disabled


def test_nothing_saved_yet_is_said_and_generate_waits(home: Path) -> None:
    run = make_run(RunStore(), until=3, status="interrupted", weights=False)
    app = dashboard("playground", run=run.id)
    assert not app.exception
    assert buttons(app)["Generate"].disabled
    assert "ended before anything was saved" in words(app)
    with hold(run):
        assert "the first weights come at the end of the first epoch" in words(dashboard("playground", run=run.id))


def test_a_corrupt_checkpoint_is_a_sentence_and_the_others_still_speak(run: Run) -> None:
    run.checkpoint("last").weights.write_bytes(b"not a safetensors file")
    app = generated(dashboard("playground", run=run.id))
    assert not app.exception
    assert "The weights step-000018 cannot be read: choose another checkpoint." in app.error[0].value.replace("\\", "")
    app.selectbox(key="playground.checkpoint").select("best").run()
    generated(app)
    assert not app.error
    assert ids_of(answer(app)) == expected(run, "best", PROMPT, SamplingConfig())


def test_a_checkpoint_that_vanished_is_a_sentence(run: Run) -> None:
    app = dashboard("playground", run=run.id, checkpoint="step-000009")
    (run.path / "checkpoints" / "step-000009" / "weights.safetensors").unlink()
    generated(app)
    assert not app.exception
    assert "has no checkpoint 'step-000009'" in app.error[0].value.replace("\\", "")


def test_a_link_to_a_checkpoint_that_is_not_there_opens_the_newest(run: Run) -> None:
    app = dashboard("playground", run=run.id, checkpoint="step-77<b>")
    assert "There is no checkpoint step-77<b> any more" in app.warning[0].value.replace("\\", "")
    assert app.selectbox(key="playground.checkpoint").value == "last"
    assert app.query_params["checkpoint"] == "last"


def test_newer_weights_of_a_run_that_trains_are_offered(run: Run) -> None:
    with hold(run):
        app = dashboard("playground", run=run.id, checkpoint="step-000018")
        assert buttons(app)["These are the newest"].disabled
        save_checkpoint(run.path / "checkpoints", model_of(9), 27)
        run.append(Saved(step=26, checkpoint="step-000027", reason="epoch", epoch=3))
        app.run()
        buttons(app)["Use the newest: after 27 steps"].click()
        app.run()
        assert app.selectbox(key="playground.checkpoint").value == "last"
        assert "Saved after 27 steps, in epoch 3" in words(app).replace("\\", "")
        generated(app)
        assert ids_of(answer(app)) == expected(run, "step-27", PROMPT, SamplingConfig())


def test_without_any_run_it_says_what_to_do(home: Path) -> None:
    app = dashboard("playground")
    assert not app.exception
    assert "No run yet" in app.info[0].value


# The pieces


def test_models_are_shared_and_the_least_recently_used_leaves(run: Run) -> None:
    model_cache._loaded.clear()
    paths = [item.weights for item in run.checkpoints()]
    first, second = (model_cache.open_model(path) for path in paths[:2])
    assert model_cache.open_model(paths[0]) is first
    model_cache.open_model(paths[2])
    assert model_cache.open_model(paths[0]) is first
    assert model_cache.open_model(paths[1]) is not second


def test_weights_that_were_replaced_are_read_again(run: Run) -> None:
    path = run.checkpoint("best").weights
    first = model_cache.open_model(path)
    save_best(run.path / "checkpoints", model_of(11), 18)
    assert not torch.equal(model_cache.open_model(path).tok_emb.weight, first.tok_emb.weight)


def test_a_thread_ends_when_nobody_looks_any_more() -> None:
    generation = Generation(
        lambda: small_model(vocab_size=50_257), Prompt((1,)), SamplingConfig(max_new_tokens=5), patience=-1.0
    )
    generation.start().wait()
    assert generation.state == "left"
    assert generation.tokens == []


def test_two_answers_at_once_do_not_disturb_each_other() -> None:
    model = small_model(vocab_size=50_257)
    chosen = SamplingConfig(max_new_tokens=40, temperature=1.0, seed=3, stop_at_end=False)
    prompts = [Prompt((1, 2)), Prompt((5,)), Prompt((7, 8, 9))]
    both = [Generation(lambda: model, prompt, chosen).start() for prompt in prompts]
    for generation, prompt in zip(both, prompts, strict=True):
        generation.wait()
        assert [token.id for token in generation.tokens] == list(sampling.generate(model, prompt.ids, chosen))


def test_a_vocabulary_without_the_prompts_tokens_is_a_sentence() -> None:
    generation = Generation(lambda: small_model(), read_prompt("Hello"), SamplingConfig())
    generation.start().wait()
    assert generation.state == "failed"
    assert "vocabulary" in generation.fault


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_a_model_too_big_for_the_memory_is_a_sentence(error: Exception) -> None:
    def broken() -> GPTModel:
        raise error

    generation = Generation(broken, Prompt((1,)), SamplingConfig())
    generation.start().wait()
    assert generation.fault == "The answer broke off: there is not enough memory for this model."


def test_a_huge_prompt_keeps_its_end() -> None:
    prompt = read_prompt("a" * 50 + " b" * 100_000)
    assert prompt.cut_characters == 100_050
    assert len(prompt.ids) == 50_000
    assert prompt.beyond(64) == 49_936
    assert prompt.beyond(None) == 0


def test_an_id_that_the_tokenizer_does_not_know_is_shown_by_its_number() -> None:
    assert tokens_of([60_000]) == [{"text": "<|60000|>", "id": 60_000}]


def test_alternatives_are_told_as_text() -> None:
    model = GPTModel(ModelConfig(context_length=4, emb_dim=4, n_heads=1, n_layers=1))
    generation = Generation(lambda: model.eval(), read_prompt(""), SamplingConfig(max_new_tokens=1))
    generation.start().wait()
    told = alternative_pieces(generation.tokens)[0]
    ids = [id_ for id_, _ in generation.tokens[0].alternatives]
    assert told[0][1] == generation.tokens[0].alternatives[0][1]
    assert len(told) == len(ids) == 10
    assert generation.text() == get_tokenizer().decode([generation.tokens[0].id])
