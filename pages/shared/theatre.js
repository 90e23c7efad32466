// The epochs of a run as frames of a film: one scrubber, samples beside each other, certainty and copies on each token.
// Everything is drawn here, so that going from epoch to epoch asks the server nothing. Text through textContent only.

const state = new WeakMap();
const INKS = ["transparent", "#e69f0026", "#e69f0055", "#e69f0099", "#d55e00b8"]; // of the tints of a token strip
const LEVELS = [0.5, 0.2, 0.05, 0.01];
const AGAINST = { before: "the epoch before", after: "the epoch after", held: "the epoch held", off: "nothing" };
const HINT = "Press: where it comes from";
const BEAT = 850; // milliseconds an epoch while playing

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

const button = (className, text, label, onClick) => {
  const made = element("button", className, text);
  made.type = "button";
  if (label && className === "th-icon") made.setAttribute("aria-label", label); // words name themselves
  if (label) made.title = label;
  made.addEventListener("click", onClick);
  return made;
};

const place = (kept, epoch) => kept.data.frames.findIndex((frame) => frame.epoch === epoch);
const shownEpoch = (kept) => (place(kept, kept.peek) >= 0 ? kept.peek : kept.epoch);

function tell(kept, epoch) {
  window.dispatchEvent(new CustomEvent("gptlab:epoch", { detail: { run: kept.data.run, epoch, peek: false, from: kept } }));
  if (kept.data.layout !== "wide") return;
  const url = new URL(window.location.href);
  if (epoch === kept.data.frames.at(-1).epoch) url.searchParams.delete("epoch");
  else url.searchParams.set("epoch", String(epoch));
  if (url.href !== window.location.href) window.history.replaceState(window.history.state, "", url);
}

function select(kept, epoch, quiet) {
  if (place(kept, epoch) < 0) return;
  kept.epoch = epoch;
  kept.peek = null;
  draw(kept);
  if (!quiet) tell(kept, epoch);
}

function step(kept, by) {
  const frames = kept.data.frames;
  const next = Math.max(0, Math.min(frames.length - 1, place(kept, kept.epoch) + by));
  select(kept, frames[next].epoch);
}

function play(kept, on) {
  clearInterval(kept.playing);
  kept.playing = null;
  if (on) {
    const frames = kept.data.frames;
    if (kept.epoch === frames.at(-1).epoch) select(kept, frames[0].epoch);
    kept.playing = setInterval(() => {
      step(kept, 1);
      if (kept.epoch === kept.data.frames.at(-1).epoch) play(kept, false);
    }, BEAT);
  }
  kept.play.textContent = on ? "❚❚ Pause" : "▶ Play";
  kept.play.setAttribute("aria-pressed", String(on));
}

// One sample as tokens for the strip. `same` are the stretches [here, there, tokens] that the other sample has too.

function tokensOf(kept, sample, same, mark) {
  const common = new Set();
  for (const [start, , length] of same ?? []) for (let k = 0; k < length; k++) common.add(sample.prompt + start + k);
  return sample.ids.map((id, at) => {
    const [text, bytes] = kept.data.pieces[id];
    const token = { id, bytes, text: kept.whitespace.checked ? text : text.replace(/\s*\n\s*/g, " ") };
    if (at < sample.prompt) return { ...token, mark: "prompt" };
    token.p = sample.p[at] ?? undefined;
    if (same && !common.has(at)) token.mark = mark;
    const copied = sample.copied?.[at - sample.prompt];
    if (copied !== null && copied !== undefined) token.copied = sample.passages[copied];
    return token;
  });
}

function drawSide(kept, side, frame, number, same, mark) {
  const sample = frame.samples[number];
  side.title.textContent = frame.name;
  side.box.hidden = !sample;
  if (!sample) return;
  const tokens = tokensOf(kept, sample, same, mark);
  side.cleanup = token_strip({
    parentElement: side.strip,
    setTriggerValue: (name, pressed) => kept.setTriggerValue(name, pressed),
    data: { tokens, show_whitespace: kept.whitespace.checked, label: frame.name, empty: "Nothing was written.", pressable: true, hint: HINT },
  });
  const changed = same ? sample.ids.length - sample.prompt - same.reduce((sum, [, , length]) => sum + length, 0) : null;
  const facts = [...sample.facts];
  if (changed !== null && mark === "added") facts.push(["differs", sample.ids.length > sample.prompt ? Math.round((100 * changed) / (sample.ids.length - sample.prompt)) + " %" : "–"]);
  side.facts.replaceChildren(...facts.map(([name, value, help]) => {
    const fact = element("span");
    fact.append(element("b", "", value), " " + name);
    if (help) fact.title = help;
    return fact;
  }));
}

function makeSide() {
  const box = element("div", "th-side");
  const title = element("div", "th-title");
  const strip = element("div", "th-strip");
  const facts = element("div", "th-facts");
  box.append(title, strip, facts);
  return { box, title, strip, facts, cleanup: null };
}

// Which frame the shown one is compared with, and what both share.

function neighbour(kept, at, number) {
  const { frames, held } = kept.data;
  const mode = kept.against.value;
  if (mode === "before" && at > 0) return [frames[at - 1], frames[at].same[number], null];
  if (mode === "after" && at + 1 < frames.length) return [frames[at + 1], turned(frames[at + 1].same[number]), null];
  if (mode === "held" && kept.held !== null) {
    const other = frames[place(kept, kept.held)];
    if (other && held?.epoch === kept.held) return [other, held.same[at]?.[number], null];
    return [other ?? null, null, "comparing …"];
  }
  return [null, null, null];
}

const turned = (same) => same?.map(([a, b, length]) => [b, a, length]);

function draw(kept) {
  const { frames, layout } = kept.data;
  const epoch = shownEpoch(kept);
  const at = place(kept, epoch);
  const frame = frames[at];
  kept.host.dataset.epoch = String(epoch);
  kept.said.textContent = frame.name + (kept.peek !== null && kept.peek !== kept.epoch ? " (under the pointer)" : "");
  kept.slider.max = String(frames.length - 1);
  kept.slider.value = String(at);
  kept.slider.disabled = frames.length < 2;
  kept.slider.setAttribute("aria-valuetext", frame.name);
  kept.back.disabled = at === 0;
  kept.on.disabled = at === frames.length - 1;
  kept.play.disabled = frames.length < 2;
  if (layout === "wide") {
    const [other, same] = neighbour(kept, at, kept.number);
    drawSide(kept, kept.sides[0], frame, kept.number, same, "added");
    kept.sides[1].box.classList.toggle("th-none", !other);
    if (other) drawSide(kept, kept.sides[1], other, kept.number, turned(same), "removed");
    else {
      kept.sides[1].title.textContent = kept.against.value === "held" ? "Press “Hold” to keep an epoch here" : "";
      kept.sides[1].strip.hidden = kept.sides[1].facts.hidden = true;
    }
    if (other) kept.sides[1].strip.hidden = kept.sides[1].facts.hidden = false;
  } else {
    frame.samples.forEach((_, number) => {
      if (!kept.sides[number]) {
        kept.sides[number] = makeSide();
        kept.stage.append(kept.sides[number].box);
      }
      drawSide(kept, kept.sides[number], frame, number, null, "added");
      kept.sides[number].title.textContent = frame.samples.length > 1 ? "After “" + kept.data.prompts[number] + "”" : "";
    });
    kept.sides.forEach((side, number) => (side.box.hidden = number >= frame.samples.length));
  }
  drawFilm(kept, at);
}

// A frame of the film: how sure each token was, which were copied, and how it begins.

const level = (p) => (p === null || p === undefined ? 0 : LEVELS.findIndex((bound) => p >= bound) < 0 ? 4 : LEVELS.findIndex((bound) => p >= bound));

function bars(colours) {
  if (!colours.length) return "none";
  const stops = colours.map((colour, k) => `${colour} ${(100 * k) / colours.length}% ${(100 * (k + 1)) / colours.length}%`);
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

function makeFrame(kept, frame) {
  const made = button("th-frame", undefined, null, () => {
    play(kept, false);
    select(kept, frame.epoch);
  });
  const sample = frame.samples[Math.min(kept.number, frame.samples.length - 1)];
  made.append(element("span", "th-n", frame.epoch === 0 ? "before" : "epoch " + frame.epoch));
  if (sample) {
    const p = sample.p.slice(sample.prompt);
    const bar = element("span", "th-bar");
    bar.style.backgroundImage = bars(p.map((value) => INKS[level(value)]));
    const copy = element("span", "th-copy");
    copy.style.backgroundImage = bars((sample.copied ?? []).map((at) => (at === null ? "transparent" : "#0072b2")));
    made.append(bar, copy, element("span", "th-text", sample.text || "(only white space)"));
    made.setAttribute("aria-label", `${frame.name}: ${sample.text || "only white space"}`);
  }
  return made;
}

function drawFilm(kept, at) {
  const frames = kept.data.frames;
  frames.forEach((frame, index) => {
    const sample = frame.samples[Math.min(kept.number, frame.samples.length - 1)];
    const signature = JSON.stringify([frame.epoch, kept.number, sample?.text, sample?.copied]);
    const present = kept.frames[index];
    if (present?.signature === signature) return;
    const made = makeFrame(kept, frame);
    if (present) present.made.replaceWith(made);
    else kept.film.append(made);
    kept.frames[index] = { made, signature };
  });
  for (const extra of kept.frames.splice(frames.length)) extra.made.remove();
  kept.frames.forEach(({ made }, index) => {
    made.classList.toggle("chosen", index === at);
    made.tabIndex = index === at ? 0 : -1;
    if (index === at) made.setAttribute("aria-current", "true");
    else made.removeAttribute("aria-current");
  });
  const chosen = kept.frames[at].made;
  if (kept.data.layout === "wide") kept.film.scrollLeft = chosen.offsetLeft - kept.film.offsetLeft - kept.film.clientWidth / 2 + chosen.offsetWidth / 2;
  }

function drawPrompts(kept) {
  const { prompts, layout } = kept.data;
  const signature = JSON.stringify([prompts, kept.number]);
  if (kept.promptsDrawn === signature) return;
  kept.promptsDrawn = signature;
  kept.prompts.hidden = layout !== "wide";
  kept.prompts.replaceChildren(element("span", "th-label", "After the prompt"), ...prompts.map((prompt, number) => {
    if (prompts.length === 1) return element("q", "", prompt);
    const made = button("th-prompt", prompt, null, () => {
      kept.number = number;
      drawPrompts(kept);
      draw(kept);
    });
    made.setAttribute("aria-pressed", String(number === kept.number));
    return made;
  }));
}

function build(root) {
  const host = element("div", "th");
  const kept = { host, sides: [], frames: [], epoch: null, peek: null, held: null, number: 0, playing: null };
  kept.prompts = element("div", "th-prompts");
  kept.back = button("th-icon", "◀", "Previous epoch", () => (play(kept, false), step(kept, -1)));
  kept.on = button("th-icon", "▶", "Next epoch", () => (play(kept, false), step(kept, 1)));
  kept.play = button("th-play", "▶ Play", null, () => play(kept, !kept.playing));
  kept.slider = element("input");
  Object.assign(kept.slider, { type: "range", min: "0", step: "1" });
  kept.slider.setAttribute("aria-label", "Epoch");
  kept.slider.addEventListener("input", () => (play(kept, false), select(kept, kept.data.frames[Number(kept.slider.value)].epoch)));
  kept.said = element("div", "th-said");
  const controls = element("div", "th-controls");
  controls.append(kept.play, kept.back, kept.slider, kept.on, kept.said);
  kept.against = element("select");
  for (const [value, text] of Object.entries(AGAINST)) kept.against.append(Object.assign(element("option", "", text), { value }));
  kept.against.addEventListener("change", () => draw(kept));
  const compare = element("label", "th-compare", "Compare with ");
  compare.append(kept.against);
  kept.hold = button("th-hold", "Hold this epoch", "Keep this epoch at the side and go on to others", () => {
    kept.held = kept.epoch;
    kept.against.value = "held";
    kept.setStateValue("held", kept.epoch);
    draw(kept);
  });
  kept.whitespace = Object.assign(element("input"), { type: "checkbox" });
  kept.whitespace.addEventListener("change", () => draw(kept));
  const white = element("label", "th-white");
  white.append(kept.whitespace, " Show white space");
  kept.options = element("div", "th-options");
  kept.options.append(compare, kept.hold, white);
  kept.stage = element("div", "th-stage");
  kept.legend = element("div", "th-legend");
  kept.film = element("div", "th-film");
  kept.film.setAttribute("role", "group");
  kept.film.setAttribute("aria-label", "All epochs");
  host.append(kept.prompts, controls, kept.options, kept.stage, kept.legend, kept.film);
  root.append(host);
  token_strip({ parentElement: kept.legend, data: { tokens: [], legend: true, label: "What the marks mean", empty: "" } });
  const copied = element("span");
  copied.append(element("span", "tok copied", "token"), " copied from the corpus, 5 tokens or more in a row");
  kept.legend.querySelector(".legend").append(copied);

  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  const stepBy = (event) => {
    event.preventDefault();
    play(kept, false);
    step(kept, steps[event.key]);
    if (kept.film.contains(event.target)) kept.film.querySelector(".chosen")?.focus({ preventScroll: true });
  };
  host.addEventListener("keydown", (event) => {
    if (event.key in steps && !event.defaultPrevented && !/INPUT|SELECT/.test(event.target.tagName)) stepBy(event);
  });
  kept.keys = (event) => {
    const free = document.activeElement === document.body || document.activeElement === null;
    if (free && kept.data.layout === "wide" && /^Arrow(Left|Right)$/.test(event.key) && !event.altKey && !event.metaKey && !event.ctrlKey) stepBy(event);
  };
  kept.heard = ({ detail }) => {
    if (detail.from === kept || detail.run !== kept.data.run) return;
    if (!detail.peek) {
      play(kept, false);
      select(kept, nearest(kept, detail.epoch), true);
    } else if (!kept.playing) {
      kept.peek = detail.epoch === null ? null : nearest(kept, detail.epoch);
      draw(kept);
    }
  };
  document.addEventListener("keydown", kept.keys);
  window.addEventListener("gptlab:epoch", kept.heard);
  return kept;
}

const nearest = (kept, epoch) =>
  kept.data.frames.reduce((best, frame) => (Math.abs(frame.epoch - epoch) < Math.abs(best - epoch) ? frame.epoch : best), kept.data.frames[0].epoch);

export default function (component) {
  const { data, parentElement, setStateValue, setTriggerValue } = component;
  let kept = state.get(parentElement);
  if (!kept || !kept.host.isConnected) {
    kept = build(parentElement);
    state.set(parentElement, kept);
  }
  const before = kept.data;
  kept.data = data;
  kept.setStateValue = setStateValue;
  kept.setTriggerValue = setTriggerValue;
  const newest = data.frames.at(-1).epoch;
  const followed = before && kept.epoch === before.frames.at(-1).epoch;
  if (!before || before.run !== data.run || before.times !== data.times) {
    kept.epoch = place(kept, data.asked) >= 0 ? data.asked : newest;
    kept.held = data.held?.epoch ?? null;
  } else if (followed || place(kept, kept.epoch) < 0) kept.epoch = newest;
  if (kept.number >= data.prompts.length) kept.number = 0;
  kept.host.classList.toggle("th-feed", data.layout !== "wide");
  kept.host.style.maxHeight = data.height ? data.height + "px" : "";
  kept.options.hidden = data.layout !== "wide";
  if (data.layout === "wide" && !kept.sides.length) {
    kept.sides = [makeSide(), makeSide()];
    kept.stage.append(...kept.sides.map((side) => side.box));
  }
  drawPrompts(kept);
  draw(kept);
  return () => {
    play(kept, false);
    for (const side of kept.sides) side.cleanup?.();
    document.removeEventListener("keydown", kept.keys);
    window.removeEventListener("gptlab:epoch", kept.heard);
    state.delete(parentElement);
  };
}
