"""A page's state in its address: a link, a reload or the browser's Back button finds the page as it was.

Widgets keep their values in the session; what differs from a field's default stands in the URL too. The URL is read
when it says something that this session did not write there itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import streamlit as st

from pages.shared.url_field import Field

LONGEST = 1500  # characters of one value: a longer one would make an address that servers refuse
LAG = 4.0  # seconds in which a quick click may still bring along an address from before the last change
KEPT = 12  # addresses that are remembered for that


def change_url(changes: Mapping[str, str | None]) -> None:
    """Set several values of the URL, or take out those that are None, in one step of the browser's history.

    One at a time, each would be a step of its own, and Back would lead to addresses that never made sense.
    """
    before = {name: st.query_params.get_all(name) for name in st.query_params}
    after = before | {name: [value] for name, value in changes.items() if value is not None}
    for name, value in changes.items():
        if value is None:
            after.pop(name, None)
    if after != before:
        st.query_params.from_dict(after)


def restore(page: str, fields: Sequence[Field]) -> list[str]:
    """Before the page's widgets: put what the URL says into the session, and defaults where nothing stands yet.

    Returns a sentence for each value in a link that could not be taken; its default stands instead.
    """
    refused = []
    named = _in_url(fields)
    written: list[tuple[float, dict[str, str]]] = st.session_state.get(f"{page}.urls", [])
    newest = written[-1][1] if written else None
    stale = any(url == named and time.monotonic() - when < LAG for when, url in written)
    if named and named != newest and not stale:
        for field in fields:
            value = field.default
            if field.name in named:
                try:
                    value = field.read(named[field.name])
                except ValueError as error:
                    default = "" if field.default is None else f" {field.write(field.default)} stands instead."
                    refused.append(f"The link’s value of {field.name.replace('_', ' ')} is left out: {error}.{default}")
            if value is None:
                st.session_state.pop(field.key, None)
            else:
                st.session_state[field.key] = value
    for field in fields:
        if field.default is not None:
            st.session_state.setdefault(field.key, field.default)
    return refused


def mirror(page: str, fields: Sequence[Field]) -> list[str]:
    """After the page's widgets: write what differs from the defaults into the URL. Returns the names of what is too
    long for an address and therefore left out."""
    left_out = []
    now: dict[str, str] = {}
    for field in fields:
        value = st.session_state.get(field.key, field.default)
        if value is None or value == field.default:
            continue
        said = field.write(value)
        if len(said) > LONGEST:
            left_out.append(field.name)
        else:
            now[field.name] = said
    before = _in_url(fields)
    change_url({name: now.get(name) for name in before | now})
    written: list[tuple[float, dict[str, str]]] = st.session_state.get(f"{page}.urls", [])
    if not written or written[-1][1] != now:
        st.session_state[f"{page}.urls"] = [*written, (time.monotonic(), now)][-KEPT:]
    return left_out


def _in_url(fields: Sequence[Field]) -> dict[str, str]:
    return {field.name: st.query_params[field.name] for field in fields if field.name in st.query_params}
