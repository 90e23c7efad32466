"""Samples: what has it learnt, epoch by epoch?"""

from __future__ import annotations

import streamlit as st

from gptlab.runs import Run
from pages.shared import theatre
from pages.shared.look import page_header, plain
from pages.shared.run_picker import pick_run
from pages.shared.store import store


def main() -> None:
    page_header("Samples", "What has it learnt, epoch by epoch?")
    run = pick_run(store())
    if run is not None:
        live = run.is_locked()
        st.fragment(show, run_every=2 if live else None)(run, live)


def show(run: Run, live: bool) -> None:
    """The theatre of a run; while it trains, each new epoch appears by itself."""
    if run.is_locked() != live:
        st.rerun()
    log = run.log()
    prompts = list(dict.fromkeys(sample.prompt for sample in log.samples))
    if not prompts:
        nothing_yet(run, live)
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        prompt = prompts[0]
        with st.container(width="stretch"):
            if len(prompts) > 1:
                prompt = st.selectbox("Prompt", prompts, key="prompt")
            else:
                plain(f"After the prompt “{shortened(prompt)}”", tone="muted")
        if st.button("Continue in the Playground", type="primary", icon=":material/edit_note:"):
            st.switch_page("pages/playground.py", query_params={"run": run.id})
    found = theatre.by_epoch(log.samples, prompt)
    epoch = theatre.scrubber(list(found))
    theatre.stage(found, epoch, log)
    st.subheader("All epochs", anchor=False)
    theatre.table(found, epoch, log)


def shortened(prompt: str, longest: int = 160) -> str:
    return prompt if len(prompt) <= longest else prompt[: longest - 1] + "…"


def nothing_yet(run: Run, live: bool) -> None:
    """A run without samples: why, and what to do."""
    if live:
        st.info("No sample yet: the first one comes before the first step.", icon=":material/hourglass_top:")
    else:
        st.info("This run wrote no sample: it ended before its first step.", icon=":material/format_quote:")
    st.page_link(
        "pages/training.py", label="See how it stands", icon=":material/show_chart:", query_params={"run": run.id}
    )


main()
