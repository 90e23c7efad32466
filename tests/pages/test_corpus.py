"""The Corpus page: what a person sees of the text, and what happens to texts that cannot be used."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from gptlab.config import PRESETS
from gptlab.corpus import add_corpus, open_corpus
from pages.shared import corpus_charts, draft, predicted
from pages.shared.remedies import remedies

DASHBOARD = str(Path(__file__).resolve().parents[2] / "dashboard.py")
HTML = "<script>alert(1)</script> <img src=x onerror=alert(1)> **bold** $x$ :red[no]\n"


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_file(DASHBOARD, default_timeout=60)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and no folder with The Verdict in it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("GPTLAB_CORPORA", raising=False)


def metrics(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def words(page: AppTest) -> str:
    """Everything that the page says in text elements, as Markdown source."""
    return "\n".join(
        element.value for element in [*page.markdown, *page.caption, *page.error, *page.warning, *page.success]
    )


def plain(text: str) -> str:
    return text.replace("\\", "")


def table(page: AppTest) -> dict[str, list[str]]:
    return {str(name): [str(cell) for cell in column] for name, column in page.table[0].value.items()}


def test_first_visit_shows_the_built_in_story(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert page.title[0].value == "Corpus"
    story = open_corpus("builtin")
    assert metrics(page)["Characters"] == f"{story.statistics().characters:,}"
    assert plain(page.header[0].value) == "Built-in story: What the River Says"
    assert "What the River Says" in page.text[0].value
    assert [button.label for button in page.button if button.proto.type == "primary"] == ["Choose the size"]


def test_verdict_shows_the_figures_of_the_exercise(page: AppTest, verdict: str) -> None:
    page.run()
    page.button(key="exercise").click().run()
    assert draft.load_draft() == PRESETS["gpt2-124m"].with_fields(data={"corpus": "the-verdict"})
    page.switch_page("pages/corpus.py").run()
    assert not page.exception
    shown = metrics(page)
    assert (shown["Characters"], shown["Bytes"], shown["Tokens"]) == ("20,479", "20,479", "5,145")
    assert table(page)["Training"] == ["18", "9", "[2, 256]", "[2, 256]", "4,608"]
    assert table(page)["Validation"] == ["2", "1", "[2, 256]", "[2, 256]", "512"]
    split = next(element.proto.body for element in page.get("html") if "split" in element.proto.body)
    assert "18,431 characters, 4,612 tokens, 18 windows" in split
    assert "2,048 characters, 534 tokens, 2 windows" in split
    assert "Validation is 2 windows" in plain(page.warning[0].value)


def test_reference_exercise_is_timed_when_asked(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []
    monkeypatch.setattr(predicted, "measure_step_seconds", lambda config, timeout: timed.append(config))
    predicted._bench.clear()
    page.run()
    assert timed == []
    page.button(key="time-reference").click().run()
    for thread in threading.enumerate():
        if thread.name == "time-a-step":
            thread.join(10)
    assert [config.model for config in timed] == [PRESETS["gpt2-124m"].model]
    monkeypatch.setattr(predicted, "predicted_seconds", lambda config, n_train, n_val: 600.0)
    page.run()
    assert "About 10 min 00 s on this machine" in words(page)


def test_remedy_changes_the_draft_and_the_verdict_on_it(page: AppTest) -> None:
    draft.save_draft(PRESETS["gpt2-124m"])
    page.run()
    assert "noisy" in page.warning[0].value
    page.button(key="Use context length 128").click().run()
    assert draft.load_draft() == PRESETS["gpt2-124m"].with_fields(model={"context_length": 128})
    assert not page.warning
    assert "128" in page.success[0].value


def test_offline_download_says_so_and_keeps_the_story(page: AppTest, offline: None) -> None:
    page.run()
    page.button(key="Download The Verdict").click().run()
    assert not page.exception
    assert "The Verdict could not be downloaded" in plain(page.error[0].value)
    assert draft.load_draft().data.corpus == "builtin"
    page.button(key="exercise").click().run()
    assert draft.load_draft() == PRESETS["tiny"]


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("nothing.txt", b"", "nothing.txt is empty"),
        ("program.txt", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "is not a text file"),
        ("latin.txt", b"caf\xe9 au lait", "is not UTF-8"),
        ("wide.txt", "\ufeffhello".encode("utf-16-le"), "is UTF-16 text"),
    ],
)
def test_unusable_upload_is_a_sentence_and_the_text_stays(page: AppTest, name: str, data: bytes, sentence: str) -> None:
    page.run()
    page.file_uploader[0].set_value([(name, data, "text/plain")]).run()
    assert not page.exception
    assert sentence in plain(page.error[0].value)
    assert "The text chosen before stays." in plain(page.error[0].value)
    assert draft.load_draft().data.corpus == "builtin"


def test_several_uploads_are_joined_in_their_order(page: AppTest) -> None:
    page.run()
    texts = [("b.txt", b"First text. " * 300, "text/plain"), ("a.txt", b"Second text. " * 300, "text/plain")]
    page.file_uploader[0].set_value(texts).run()
    assert not page.exception
    corpus = open_corpus(draft.load_draft().data.corpus)
    assert corpus.text == "First text. " * 300 + "<|endoftext|>" + "Second text. " * 300
    assert "1. b.txt, 3,600 characters" in plain(words(page))
    assert "2. a.txt, 3,900 characters" in plain(words(page))


def test_one_bad_file_among_good_ones_is_left_out_and_named(page: AppTest) -> None:
    page.run()
    page.file_uploader[0].set_value(
        [("good.txt", b"Good text. " * 300, "text/plain"), ("bad.txt", b"", "text/plain")]
    ).run()
    assert "bad.txt is empty" in plain(page.error[0].value)
    assert "The other files are used." in plain(page.error[0].value)
    assert open_corpus(draft.load_draft().data.corpus).name == "good.txt"


def test_html_in_text_and_file_name_is_never_markup(page: AppTest) -> None:
    name = "<img src=x onerror=alert(1)> **b**.txt"
    draft.choose_corpus(add_corpus(name, HTML * 100).reference)
    page.run()
    assert not page.exception
    assert plain(page.header[0].value) == name
    assert "\\<img" in page.header[0].value
    assert HTML.strip() in page.text[0].value
    assert not [element for element in page.get("html") if "alert" in element.proto.body]
    assert "<script>" not in words(page).replace("\\<script", "")


def test_text_too_short_is_refused_with_reasons(page: AppTest) -> None:
    draft.choose_corpus(add_corpus("short.txt", "Too short.").reference)
    page.run()
    assert not page.exception
    assert "The training part has" in plain(page.error[0].value)
    assert table(page)["Training"] == ["0", "0", "–", "–", "0"]


def test_pages_show_the_tokens_asked_for(page: AppTest) -> None:
    page.run()
    pages = next(box for box in page.number_input if box.label.startswith("Page"))
    pages.set_value(2).run()
    ids = open_corpus("builtin").token_ids()
    from gptlab.tokenizer import get_tokenizer

    assert page.text[0].value == get_tokenizer().decode([int(id_) for id_ in ids[400:800]])
    assert "Tokens 401 to 800" in words(page)


def test_text_whose_file_is_gone_says_so_and_offers_another(page: AppTest) -> None:
    draft.choose_corpus("sha256:" + "0" * 64)
    page.run()
    assert not page.exception
    assert "add the original file again" in plain(page.error[0].value)
    page.button(key="Choose the built-in story").click().run()
    assert draft.load_draft().data.corpus == "builtin"
    assert not page.error


def test_data_folder_that_cannot_be_written_is_a_sentence(page: AppTest, home: Path) -> None:
    home.write_text("a file where the folder should be")
    page.run()
    assert not page.exception
    assert str(home) in plain(page.error[0].value)


def test_earlier_upload_can_be_chosen_again(page: AppTest) -> None:
    kept = add_corpus("kept.txt", "Kept text. " * 300)
    page.run()
    page.selectbox(key="corpus.earlier").set_value(kept.sha256).run()
    assert draft.load_draft().data.corpus == kept.reference
    assert plain(page.header[0].value) == "kept.txt"


def test_remedies_name_the_smallest_change_that_helps() -> None:
    config = PRESETS["gpt2-124m"]
    assert remedies(config, 49_000, 5_000) == []
    assert [remedy.label for remedy in remedies(config, 4_612, 534)] == [
        "Use context length 128",
        "Use training share 0.8",
    ]
    labels = [remedy.label for remedy in remedies(config, 300, 300)]
    assert "Use batch size 1" in labels
    assert "Keep the last short batch" in labels


def test_no_remedy_is_offered_that_would_not_help() -> None:
    assert remedies(PRESETS["tiny"], 2, 1) == []


def test_split_is_drawn_to_scale() -> None:
    parts = [
        corpus_charts.SplitPart("Training", 900, 200, 3, 150),
        corpus_charts.SplitPart("Validation", 100, 20, 0, 0),
    ]
    drawn = corpus_charts.split_html(parts)
    assert "width:90.000%" in drawn
    assert "width:75.000%" in drawn  # of the training part, what its windows read
    assert drawn.count("<i ") == 3


def test_token_text_in_a_chart_is_never_markup() -> None:
    from gptlab.text_statistics import FrequentToken

    figure = corpus_charts.frequency_figure([FrequentToken(1, "<b>% ", 3)], 3)
    assert figure["layout"]["yaxis"]["ticktext"] == ["&lt;b&gt;&#37;·"]
