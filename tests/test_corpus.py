"""The store of texts: kept by hash, whole or not at all, and every fault one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptlab import corpus as module
from gptlab.corpus import BUILTIN, THE_VERDICT, THE_VERDICT_SHA256, add_corpus, known_corpora, open_corpus
from gptlab.home import corpora_folder
from gptlab.textfile import CorpusError, display_name
from gptlab.tokenizer import END_OF_TEXT, encode_text

TEXT = "The river rises.\nThe river falls.\n\nNora wrote it down.\n"


def file(folder: Path, raw: bytes | str, name: str = "mine.txt") -> str:
    path = folder / name
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return str(path)


def fault(source: str | list[str], **options: bool) -> str:
    with pytest.raises(CorpusError) as caught:
        open_corpus(source, **options)
    return str(caught.value)


# --- what is kept ---


def test_the_builtin_story_opens_with_its_title() -> None:
    corpus = open_corpus(BUILTIN)
    assert corpus.name == "Built-in story: What the River Says"
    assert corpus.text.startswith("What the River Says\n\n")
    assert corpus.characters == len(corpus.text)


def test_a_text_outlives_its_file_under_its_hash(tmp_path: Path) -> None:
    path = file(tmp_path, TEXT)
    first = open_corpus(path)
    Path(path).unlink()
    again = open_corpus(first.reference)
    assert first.reference == f"sha256:{first.sha256}"
    assert (again, again.text, again.name) == (first, TEXT, "mine.txt")
    assert first.folder == corpora_folder() / first.sha256
    assert (first.folder / "text.txt").read_bytes() == TEXT.encode()


def test_a_text_is_kept_as_it_is_but_for_the_byte_order_mark() -> None:
    windows = "eins\r\nzwei\r\n"
    assert add_corpus("w.txt", windows.encode()).text == windows
    marked = add_corpus("m.txt", b"\xef\xbb\xbf" + windows.encode())
    assert marked.text == windows
    assert marked.sha256 == add_corpus("w.txt", windows).sha256


def test_the_first_name_of_a_text_stays_unless_it_is_a_known_one() -> None:
    assert add_corpus("first.txt", TEXT).name == "first.txt"
    assert add_corpus("second.txt", TEXT).name == "first.txt"
    story = open_corpus(BUILTIN).text
    (corpora_folder() / open_corpus(BUILTIN).sha256 / "meta.json").unlink()
    assert "Built-in story" not in add_corpus("mine.txt", story).name
    assert "Built-in story" in open_corpus(BUILTIN).name
    assert "Built-in story" in add_corpus("mine.txt", story).name


def test_several_texts_are_joined_by_the_end_token_in_their_order(tmp_path: Path) -> None:
    one, two = file(tmp_path, "One.", "1.txt"), file(tmp_path, "Two, longer.", "2.txt")
    joined = open_corpus([two, one])
    assert joined.text == f"Two, longer.{END_OF_TEXT}One."
    assert joined.parts == (("2.txt", 12), ("1.txt", 4))
    assert joined.name == "2.txt + 1.txt"
    assert joined.characters == len(joined.text)
    assert list(joined.token_ids()).count(50256) == 1
    assert open_corpus(joined.reference).parts == joined.parts
    assert open_corpus([one, joined.reference]).parts == (("1.txt", 4), ("2.txt", 12), ("1.txt", 4))
    assert open_corpus([one]) == open_corpus(one)


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/passwd", "<script>alert(1)</script>", "a\0b\n\x1b[31m", "", "n" * 300, "\udcff.txt"]
)
def test_a_name_is_only_ever_shown(name: str, home: Path) -> None:
    corpus = add_corpus(name, TEXT)
    assert corpus.folder == corpora_folder() / corpus.sha256
    assert {path.name for path in home.rglob("*")} == {"corpora", corpus.sha256, "text.txt", "meta.json"}
    assert 0 < len(corpus.name) <= 80
    assert corpus.name.isprintable()
    assert open_corpus(corpus.reference).name == corpus.name


def test_html_in_a_name_is_left_for_the_page_to_escape() -> None:
    assert display_name("<b>x</b>.txt") == "<b>x</b>.txt"
    assert display_name("n" * 300) == "n" * 77 + "..."


def test_adding_the_same_text_at_the_same_time_gives_one_entry(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda n: add_corpus(f"{n}.txt", TEXT), range(24)))
    assert {corpus.text for corpus in added} == {TEXT}
    assert [path.name for path in corpora_folder().iterdir()] == [added[0].sha256]


def test_a_failed_write_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes | str) -> None:
        if path.name == "text.txt":
            raise OSError(28, "No space left on device")
        path.write_text(str(data))

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(CorpusError, match=r"cannot be kept .*No space left on device.*free some disk space"):
        add_corpus("mine.txt", TEXT)
    assert list(corpora_folder().iterdir()) == []


def test_known_corpora_are_the_story_the_verdict_and_the_newest_first(
    verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(module.time, "time", lambda: next(clock))
    open_corpus(THE_VERDICT)
    for name in ("old.txt", "new.txt"):
        add_corpus(name, f"{name}: {TEXT}")
    (corpora_folder() / "stray").mkdir()
    (corpora_folder() / ("0" * 64)).mkdir()
    names = [corpus.name for corpus in known_corpora()]
    assert names == ["Built-in story: What the River Says", "The Verdict", "new.txt", "old.txt"]


# --- what is computed ---


def test_token_ids_are_those_of_the_characters_asked_for_and_read_back_from_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = add_corpus("mine.txt", TEXT)
    expected = {(0, None): TEXT, (0, 20): TEXT[:20], (20, None): TEXT[20:], (-5, None): TEXT[-5:], (9, 9): ""}
    for (start, end), text in expected.items():
        assert corpus.token_ids(start, end).tolist() == encode_text(text).tolist()
    assert (corpus.folder / f"ids-0-{len(TEXT)}.npy").is_file()
    monkeypatch.setattr(module, "encode_text", None)
    seen: list[float] = []
    for (start, end), text in expected.items():
        ids = open_corpus(corpus.reference).token_ids(start, end, seen.append)
        assert ids.dtype == np.int32
        assert ids.tolist() == encode_text(text).tolist()
    assert seen == [1.0] * len(expected)


def test_split_is_by_characters_and_each_part_is_tokenised_alone(verdict: str) -> None:
    train, val = open_corpus(THE_VERDICT).split_ids(0.9)
    cut = int(0.9 * len(verdict))
    assert train.tolist() == encode_text(verdict[:cut]).tolist()
    assert val.tolist() == encode_text(verdict[cut:]).tolist()


def test_split_reports_one_progress_over_both_parts() -> None:
    seen: list[float] = []
    add_corpus("mine.txt", TEXT * 20_000).split_ids(0.5, seen.append)
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


DAMAGES = {
    "torn": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "garbage": lambda raw: b"not an array",
    "impossible ids": lambda raw: raw[:-4] + b"\xff\xff\xff\x7f",
    "floats": lambda raw: raw.replace(b"'<i4'", b"'<f4'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_ids_are_computed_again(damage: str) -> None:
    corpus = add_corpus("mine.txt", TEXT)
    expected = corpus.token_ids().tolist()
    path = corpus.folder / f"ids-0-{len(TEXT)}.npy"
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert path.read_bytes() != whole
    assert corpus.token_ids().tolist() == expected
    assert path.read_bytes() == whole


def test_old_pieces_of_ids_are_forgotten_and_the_newest_kept() -> None:
    corpus = add_corpus("mine.txt", TEXT)
    for end in range(1, 31):
        corpus.token_ids(0, end)
    kept = {path.name for path in corpus.folder.glob("ids-*.npy")}
    assert len(kept) <= 8
    assert "ids-0-30.npy" in kept


def test_a_store_that_cannot_be_written_still_gives_ids_and_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = add_corpus("mine.txt", TEXT)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    assert corpus.token_ids().tolist() == encode_text(TEXT).tolist()
    assert corpus.statistics().characters == len(TEXT)


def test_a_damaged_text_is_noticed_and_repaired_by_adding_it_again() -> None:
    corpus = add_corpus("mine.txt", TEXT)
    corpus.token_ids(0, 10)
    (corpus.folder / "text.txt").write_text("something else")
    with pytest.raises(CorpusError, match=r"damaged: add the original file again"):
        _ = open_corpus(corpus.reference).text
    assert add_corpus("mine.txt", TEXT).text == TEXT
    assert list(corpus.folder.glob("ids-*.npy")) == []


@pytest.mark.parametrize("meta", ["", "{", "[]", '{"parts": []}', '{"parts": [["a"]]}', '{"parts": 3}'])
def test_torn_names_are_replaced_and_the_text_is_still_there(meta: str) -> None:
    corpus = add_corpus("mine.txt", TEXT)
    (corpus.folder / "meta.json").write_text(meta)
    again = open_corpus(corpus.reference)
    assert (again.text, again.characters) == (TEXT, len(TEXT))
    assert again.name == f"text {corpus.sha256[:12]}"
    assert again in known_corpora()


def test_statistics_of_a_small_text() -> None:
    text = "one two\ntwo  é🙂\nlast line"
    statistics = add_corpus("mine.txt", text).statistics()
    ids = encode_text(text).tolist()
    assert (statistics.characters, statistics.bytes) == (len(text), len(text.encode()))
    assert (statistics.lines, statistics.words) == (3, 6)
    assert (statistics.tokens, statistics.distinct_tokens) == (len(ids), len(set(ids)))
    assert statistics.characters_per_token == len(text) / len(ids)
    assert sum(times for _, _, times in statistics.most_frequent) == len(ids)
    assert add_corpus("ended.txt", "one\ntwo\n").statistics().lines == 2


def test_most_frequent_tokens_come_first_at_most_fifty_and_show_no_replacement_character() -> None:
    frequent = open_corpus(BUILTIN).statistics().most_frequent
    assert len(frequent) == 50
    assert [times for _, _, times in frequent] == sorted((times for _, _, times in frequent), reverse=True)
    assert frequent[0][:2] == (262, " the")
    emoji = add_corpus("e.txt", "🙂" * 10).statistics().most_frequent
    assert all("\ufffd" not in text for _, text, _ in emoji)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.text(min_size=1).filter(lambda text: not text.isspace() and "\0" not in text and text[0] != "\ufeff"))
def test_statistics_and_text_agree_for_any_text(text: str) -> None:
    corpus = add_corpus("any.txt", text)
    statistics = corpus.statistics()
    assert corpus.text == text
    assert statistics.words == len(text.split())
    assert statistics.tokens == len(corpus.token_ids())


def test_statistics_are_read_back_and_computed_again_when_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = add_corpus("mine.txt", TEXT)
    seen: list[float] = []
    expected = corpus.statistics(seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    for torn in ("{", "[]", '{"most_frequent": [[1]]}', '{"most_frequent": [], "words": 3}'):
        (corpus.folder / "stats.json").write_text(torn)
        assert corpus.statistics() == expected
    monkeypatch.setattr(module, "count_text", None)
    assert open_corpus(corpus.reference).statistics() == expected


def test_neither_torch_nor_streamlit_is_needed() -> None:
    script = """
import sys
from gptlab.corpus import open_corpus
open_corpus("builtin").split_ids(0.9); open_corpus("builtin").statistics()
sys.exit(bool({"torch", "streamlit"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- faults ---


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "mine.txt is empty: choose a file with text in it."),
        (b"\xef\xbb\xbf", "mine.txt is empty: choose a file with text in it."),
        (b" \n\t\r\n", "mine.txt holds nothing but white space: choose a file with text in it."),
        (b"PNG\0\1\2\3", "mine.txt is not a text file (a NUL byte at offset 3)"),
        (b"caf\xe9 au lait", "mine.txt is not UTF-8 (byte 0xe9 at offset 3): save it as UTF-8 text"),
        (b"\xef\xbb\xbfcaf\xe9 au lait", "mine.txt is not UTF-8 (byte 0xe9 at offset 6)"),
        (TEXT.encode("utf-16"), "mine.txt is UTF-16 text, not UTF-8: save it as UTF-8 text"),
        (b"\xfe\xff" + "漢字".encode("utf-16-be"), "mine.txt is UTF-16 text"),
        (TEXT.encode("utf-16-le"), "mine.txt is UTF-16 text"),
        (TEXT.encode("utf-16-be"), "mine.txt is UTF-16 text"),
    ],
)
def test_a_file_that_is_no_text_is_refused_in_one_sentence(raw: bytes, said: str, tmp_path: Path) -> None:
    message = fault(file(tmp_path, raw))
    assert message.startswith(said)
    assert "\n" not in message
    with pytest.raises(CorpusError) as uploaded:
        add_corpus("mine.txt", raw)
    assert str(uploaded.value) == message
    assert not corpora_folder().exists()


def test_a_lone_surrogate_is_refused_as_not_utf8() -> None:
    with pytest.raises(CorpusError, match="not UTF-8"):
        add_corpus("mine.txt", "a\ud800b")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("buitlin", "did you mean builtin?"),
        ("verdict", "did you mean the-verdict?"),
        ("no/such/file.txt", "There is no corpus and no file no/such/file.txt: use builtin, the-verdict or the path"),
        ("x" * 5000, "cannot be read (File name too long)"),
        ("", "is a folder"),
        ("~nobody-at-all/x", "cannot be read"),
        ("/dev/zero", "/dev/zero is not an ordinary file"),
        ("sha256:" + "0" * 64, "No text with sha256:" + "0" * 64 + " is kept in"),
        ("sha256:../../etc", "No text with sha256:../../etc is kept in"),
    ],
)
def test_a_source_that_names_nothing_is_refused_with_a_remedy(source: str, said: str) -> None:
    message = fault(source)
    assert said in message
    assert ": " in message
    assert "\n" not in message


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder: give the path of a text file in it." in fault(str(tmp_path))


def test_every_source_that_cannot_be_used_is_named_at_once(tmp_path: Path) -> None:
    good, empty = file(tmp_path, TEXT, "good.txt"), file(tmp_path, b"", "empty.txt")
    lines = fault([empty, good, "buitlin"]).split("\n")
    assert len(lines) == 2
    assert lines[0].startswith("empty.txt is empty")
    assert "did you mean builtin?" in lines[1]
    assert "No corpus is named" in fault([])


# --- The Verdict ---


class Site:
    """A web server of our own with one page."""

    def __init__(self, body: bytes) -> None:
        self.asked = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/the-verdict.txt"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GPTLAB_CORPORA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sites: list[Site] = []

    def start(body: bytes) -> Site:
        sites.append(Site(body))
        monkeypatch.setattr(module, "THE_VERDICT_URL", sites[-1].url)
        return sites[-1]

    yield start
    for site in sites:
        site.server.shutdown()
        site.server.server_close()


def test_the_verdict_is_downloaded_once(verdict: str, serve) -> None:
    site = serve(verdict.encode())
    corpus = open_corpus(THE_VERDICT)
    assert (corpus.sha256, corpus.name, corpus.text) == (THE_VERDICT_SHA256, "The Verdict", verdict)
    assert open_corpus(THE_VERDICT, download=False) == corpus
    assert site.asked == 1


def test_a_download_that_is_not_the_published_text_is_not_kept(serve) -> None:
    serve(b"<html>Please log in to this network</html>")
    message = fault(THE_VERDICT)
    assert "is not the published text" in message
    assert "the built-in story (builtin) works with no network" in message
    assert "\n" not in message
    assert not corpora_folder().exists()


def test_offline_says_in_one_sentence_what_works_instead(serve) -> None:
    site = serve(b"")
    site.server.shutdown()
    site.server.server_close()
    message = fault(THE_VERDICT)
    assert message.startswith("The Verdict could not be downloaded (")
    assert "the built-in story (builtin) works with no network" in message
    assert "\n" not in message


def test_without_leave_to_download_nothing_is_asked(serve) -> None:
    site = serve(b"")
    assert "the built-in story (builtin) works with no network" in fault(THE_VERDICT, download=False)
    assert site.asked == 0


def test_the_verdict_is_taken_from_the_named_folder_before_the_network(
    verdict: str, serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = serve(b"")
    monkeypatch.setenv("GPTLAB_CORPORA", str(tmp_path))
    file(tmp_path, verdict + " ", "the-verdict.txt")
    assert f"{tmp_path / 'the-verdict.txt'} is not the published text" in fault(THE_VERDICT)
    file(tmp_path, verdict, "the-verdict.txt")
    assert open_corpus(THE_VERDICT).text == verdict
    assert site.asked == 0


def test_a_damaged_copy_of_the_verdict_is_fetched_again(verdict: str, serve) -> None:
    serve(verdict.encode())
    corpus = open_corpus(THE_VERDICT)
    (corpus.folder / "text.txt").write_text("torn")
    assert open_corpus(THE_VERDICT).text == verdict


def test_the_store_holds_readable_json_names() -> None:
    corpus = add_corpus("é.txt", TEXT)
    assert json.loads((corpus.folder / "meta.json").read_text())["parts"] == [["é.txt", len(TEXT)]]
