"""gptlab's dashboard: ``streamlit run dashboard.py``.

The app and its routes, and under ``__main__`` the router. Pages stand in ``pages/``; they never train: a run lives in
a worker process and in its folder, so closing or restarting this dashboard loses nothing.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

if sys.platform == "win32":
    raise SystemExit("gptlab runs on Linux and macOS: on Windows, install WSL (wsl --install) and start it there.")

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from gptlab.launcher import missing_waiting
from pages.shared.contrast import readable
from pages.shared.late_fragments import let_late_fragments_go
from pages.shared.lessons_link import lessons_link
from pages.shared.live_status import live_status
from pages.shared.routes import routes
from pages.shared.token_chain import token_dialog
from pages.shared.waking import with_the_queue

HERE = Path(__file__).parent
os.environ.update(missing_waiting(os.environ))  # before a page loads torch
# Streamlit takes a folder called pages/ for its older way of making pages until st.navigation has run once: without
# this line, a deep link opened right after a start would show its page bare, without the router.
PagesManager.uses_pages_directory = False
let_late_fragments_go()
app = st.App(__file__, routes=routes(), lifespan=with_the_queue)


@st.cache_resource(show_spinner=False)
def settle() -> None:
    """Once, after the first page: leave the modules loaded by now out of every later garbage collection."""
    gc.collect()
    gc.freeze()


def to_corpus() -> None:
    """``/corpus``: the first page stands at ``/`` alone, but whoever types its name means it."""
    st.switch_page("pages/corpus.py", query_params=st.query_params.to_dict())


def main() -> None:
    st.set_page_config(page_title="gptlab", page_icon=str(HERE / "pages" / "shared" / "favicon.svg"), layout="wide")
    st.logo(HERE / "pages" / "shared" / "logo.svg", size="large")
    pages = [  # the first one is served at "/" whatever its path, which only leaves the name "corpus" to its alias
        st.Page("pages/corpus.py", title="Corpus", icon=":material/menu_book:", url_path="start", default=True),
        st.Page("pages/hyperparameters.py", title="Hyperparameters", icon=":material/tune:"),
        st.Page("pages/training.py", title="Training", icon=":material/show_chart:"),
        st.Page("pages/samples.py", title="Samples", icon=":material/format_quote:"),
        st.Page("pages/playground.py", title="Playground", icon=":material/edit_note:"),
        st.Page("pages/runs.py", title="Runs", icon=":material/folder_copy:"),
        st.Page(to_corpus, title="Corpus", url_path="corpus", visibility="hidden"),
    ]
    page = st.navigation(pages, expanded=True)
    with st.sidebar:
        live_status()
        lessons_link()
    page.run()
    token_dialog()
    readable()
    settle()


if __name__ == "__main__":
    main()
