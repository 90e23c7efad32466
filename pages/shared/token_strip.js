// Tokens as readable text. Every piece of text reaches the page through textContent: nothing in it can become HTML.

const state = new WeakMap();
const GLYPHS = { " ": "\u00b7", "\t": "\u21e5", "\n": "\u21b5", "\r": "\u240d" };
const CONTEXT = 12; // tokens before a pressed one that are told with it
const LEVELS = [0.5, 0.2, 0.05, 0.01];
const LEGEND = ["50 % and more", "20 to 50 %", "5 to 20 %", "1 to 5 %", "below 1 %"];

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

const visible = (text) => text.replace(/[ \t\n\r]/g, (mark) => GLYPHS[mark]);
const percent = (p) => (p >= 0.9995 ? "100 %" : p >= 0.1 ? (100 * p).toFixed(1) + " %" : (100 * p).toPrecision(2) + " %");
const level = (p) => LEVELS.findIndex((bound) => p >= bound);

function hexBytes(token) {
  if (token.bytes) return token.bytes;
  return [...new TextEncoder().encode(token.text)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function classes(token, index) {
  const names = ["tok"];
  if (token.mark === "prompt") names.push("prompt");
  else if (typeof token.p === "number") names.push("p", "p" + (level(token.p) < 0 ? 4 : level(token.p)));
  else if (token.p === undefined || token.p === null) if (token.plain !== true) names.push("a" + (index % 4));
  if (token.mark === "added" || token.mark === "removed") names.push(token.mark);
  if (token.here) names.push("here");
  if (token.copied) names.push("copied");
  if (/\\x[0-9a-f]{2}/.test(token.text)) names.push("odd");
  return names.join(" ");
}

function fill(span, token, index, showWhitespace, next) {
  span.className = classes(token, index);
  span.textContent = "";
  if (!showWhitespace) {
    span.textContent = token.text;
    return;
  }
  // Glyphs are no place to break a line: a wbr before each is, at the end of the token before where there is one.
  for (const part of token.text.split(/([ \t\n\r])/)) {
    if (!part) continue;
    if (part in GLYPHS && span.hasChildNodes()) span.append(element("wbr"));
    span.append(part in GLYPHS ? element("span", "white", GLYPHS[part] + (part === "\n" ? "\n" : "")) : part);
  }
  if (next && next.text[0] in GLYPHS) span.append(element("wbr"));
}

function showCard(kept, span) {
  const token = kept.tokens[Number(span.dataset.index)];
  if (!token) return;
  if (kept.open && kept.open !== span) kept.open.classList.remove("open");
  kept.open = span;
  span.classList.add("open");
  span.setAttribute("aria-describedby", "card");
  const card = kept.card;
  card.textContent = "";
  card.append(element("div", "piece", visible(token.text) || "(empty)"));
  const facts = element("dl");
  const rows = [["id", String(token.id)], ["bytes", hexBytes(token)]];
  if (typeof token.p === "number") rows.push(["probability", percent(token.p)]);
  if (token.mark === "prompt") rows.push(["", "part of the prompt"]);
  if (token.mark === "added" || token.mark === "removed") rows.push(["", token.mark + " against the neighbour"]);
  if (token.title) rows.push(["", token.title]);
  for (const [name, value] of rows) facts.append(element("dt", "", name), element("dd", "", value));
  card.append(facts);
  if (token.alternatives && token.alternatives.length) {
    const table = element("div", "alts");
    for (const [text, p] of token.alternatives) {
      const bar = element("div", text === token.text ? "bar chosen" : "bar");
      bar.style.width = Math.max(1, 100 * p) + "%";
      table.append(element("span", "name", (text === token.text ? "\u25b8 " : "") + visible(text)), bar, element("span", "", percent(p)));
    }
    card.append(table);
  }
  if (token.copied) card.append(...quoted(token.copied));
  if (kept.pressable && kept.hint) card.append(element("div", "hint", kept.hint));
  card.hidden = false;
  if (card.showPopover && !card.matches(":popover-open")) card.showPopover();
  const at = span.getClientRects()[0] || span.getBoundingClientRect();
  const own = card.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - own.width - 8));
  const below = at.bottom + 6 + own.height < window.innerHeight;
  card.style.left = left + "px";
  card.style.top = (below ? at.bottom + 6 : Math.max(8, at.top - own.height - 6)) + "px";
}

// Where a copied token stands in the corpus: the passage with what is around it, then the place.

function quoted({ before, text, after, where }) {
  const quote = element("div", "quote");
  quote.append("… " + before, element("b", "", text), after + " …");
  return [quote, element("div", "where", where)];
}

function hideCard(kept) {
  if (kept.open) kept.open.classList.remove("open");
  kept.open = null;
  if (kept.card.hidePopover && kept.card.matches(":popover-open")) kept.card.hidePopover();
  kept.card.hidden = true;
}

function move(kept, step) {
  const spans = kept.strip.children;
  if (!spans.length) return;
  const next = Math.max(0, Math.min(spans.length - 1, kept.at + step));
  spans[kept.at]?.setAttribute("tabindex", "-1");
  kept.at = next;
  spans[next].setAttribute("tabindex", "0");
  spans[next].focus();
}

function build(root) {
  const strip = element("div", "strip");
  const legend = element("div", "legend");
  const card = element("div", "card");
  card.id = "card";
  card.setAttribute("role", "tooltip");
  if (card.showPopover) card.setAttribute("popover", "manual");
  card.hidden = true;
  const host = element("div");
  host.append(strip, legend, card);
  root.append(host);
  const kept = { host, strip, legend, card, tokens: [], shown: [], at: 0, open: null };
  const token = (event) => event.target.closest?.(".tok");
  strip.addEventListener("pointerover", (event) => token(event) && showCard(kept, token(event)));
  strip.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && hideCard(kept));
  const press = (event) => {
    const span = token(event);
    if (!span) return;
    showCard(kept, span);
    const index = Number(span.dataset.index);
    const after = kept.tokens.slice(Math.max(0, index - CONTEXT), index).map((before) => before.id);
    if (kept.pressable && kept.tokens[index]) kept.press({ index, id: kept.tokens[index].id, after });
  };
  strip.addEventListener("click", press);
  strip.addEventListener("focusin", (event) => {
    if (!token(event)) return;
    kept.strip.children[kept.at]?.setAttribute("tabindex", "-1");
    kept.at = Number(token(event).dataset.index);
    token(event).setAttribute("tabindex", "0");
    showCard(kept, token(event));
  });
  strip.addEventListener("focusout", () => hideCard(kept));
  strip.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") hideCard(kept);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      press(event);
    }
    if (event.key in steps) {
      event.preventDefault();
      move(kept, steps[event.key]);
    }
  });
  kept.away = (event) => !event.composedPath().includes(strip) && hideCard(kept);
  kept.scroll = () => hideCard(kept);
  document.addEventListener("pointerdown", kept.away);
  document.addEventListener("scroll", kept.scroll, { capture: true, passive: true });
  return kept;
}

function drawLegend(kept, wanted) {
  kept.legend.textContent = "";
  kept.legend.hidden = !wanted;
  if (!wanted) return;
  kept.legend.append(element("span", "", "The less sure, the more ink:"));
  LEGEND.forEach((text, index) => {
    const entry = element("span");
    entry.append(element("span", `tok p p${index}`, "token"), text);
    kept.legend.append(entry);
  });
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let kept = state.get(parentElement);
  if (!kept || kept.host.parentNode !== parentElement) {
    kept = build(parentElement);
    state.set(parentElement, kept);
  }
  kept.press = (pressed) => setTriggerValue("pressed", pressed);
  kept.pressable = data.pressable;
  kept.hint = data.hint;
  const { tokens, height, show_whitespace: showWhitespace, label, legend, empty } = data;
  kept.strip.classList.toggle("tall", Boolean(height));
  kept.strip.classList.toggle("pressable", Boolean(data.pressable));
  kept.strip.style.maxHeight = height ? height + "px" : "";
  kept.strip.setAttribute("role", "group");
  kept.strip.setAttribute("aria-label", label);
  kept.strip.querySelector(".none")?.remove();
  kept.tokens = tokens;
  const shown = tokens.map((token, index) => JSON.stringify([token, showWhitespace, index % 4, tokens[index + 1]?.text[0]]));
  while (kept.strip.children.length > tokens.length) kept.strip.lastChild.remove();
  tokens.forEach((token, index) => {
    let span = kept.strip.children[index];
    if (span && kept.shown[index] === shown[index]) return;
    if (!span) {
      span = element("span");
      span.dataset.index = String(index);
      span.setAttribute("tabindex", index === 0 ? "0" : "-1");
      kept.strip.append(span);
    }
    fill(span, token, index, showWhitespace, tokens[index + 1]);
  });
  kept.shown = shown;
  if (kept.at >= tokens.length) kept.at = 0;
  if (!tokens.length && empty) {
    kept.strip.append(element("span", "none", empty));
    kept.shown = [];
  }
  if (kept.open && !kept.open.isConnected) hideCard(kept);
  drawLegend(kept, legend);
  return () => {
    document.removeEventListener("pointerdown", kept.away);
    document.removeEventListener("scroll", kept.scroll, { capture: true });
    state.delete(parentElement);
  };
}
