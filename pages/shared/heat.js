// The loss of each token of a passage in every epoch: a picture of tokens by epochs, and the passage itself below it,
// tinted for the epoch that is chosen on the page. Text through textContent only.

const state = new WeakMap();
const MOST = 10; // nats that have full ink
const NAMES = 62; // pixels for the names of the epochs

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

const nats = (loss) => (loss === null ? "unknown" : loss.toFixed(2) + " nats");
const percent = (loss) => (loss === null ? "" : (100 * Math.exp(-loss)).toPrecision(2) + " %");
const named = (epoch) => (epoch === 0 ? "before" : "epoch " + epoch);
const visible = (text) => text.replace(/\n/g, "↵").replace(/^ /, "·");
const row = (kept) => Math.max(0, kept.data.epochs.indexOf(kept.epoch));

function size(kept) {
  const { epochs, tokens } = kept.data;
  const width = Math.max(240, kept.picture.clientWidth);
  return { width, cell: (width - NAMES) / Math.max(1, tokens.length - 1), height: Math.max(5, Math.min(20, Math.floor(300 / epochs.length))) };
}

function paint(kept) {
  const { epochs, losses } = kept.data;
  const { width, cell, height } = size(kept);
  const canvas = kept.canvas;
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = epochs.length * height * scale;
  canvas.style.height = epochs.length * height + "px";
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(kept.host);
  const ink = style.getPropertyValue("--heat-ink").trim() || "#b34a00";
  pen.font = "11px " + (style.getPropertyValue("--st-font").trim() || "sans-serif");
  pen.textBaseline = "middle";
  const every = Math.ceil(13 / height);
  epochs.forEach((epoch, y) => {
    losses[y].forEach((loss, x) => {
      pen.globalAlpha = loss === null ? 1 : Math.min(1, Math.max(0, loss / MOST));
      pen.fillStyle = loss === null ? "#88888855" : ink;
      pen.fillRect(NAMES + x * cell, y * height, Math.max(0.5, cell - (cell > 4 ? 1 : 0)), height - (height > 6 ? 1 : 0));
    });
    pen.globalAlpha = 1;
    pen.fillStyle = style.color;
    if (y % every === 0 || y === epochs.length - 1) pen.fillText(named(epoch), 0, y * height + height / 2);
  });
  kept.mark.style.cssText = `top:${row(kept) * height}px;height:${height - 1}px;left:${NAMES - 2}px`;
  const { x, y } = kept.cursor;
  kept.box.hidden = x === null;
  if (x !== null) kept.box.style.cssText = `left:${NAMES + x * cell}px;top:${y * height}px;width:${Math.max(3, cell)}px;height:${height}px`;
}

function read(kept, x, y) {
  const { epochs, tokens, losses } = kept.data;
  kept.cursor = { x, y };
  const loss = losses[y][x];
  kept.told.textContent = `“${visible(tokens[x + 1].text)}”, ${epochs[y] === 0 ? "before training" : "after epoch " + epochs[y]}: ${nats(loss)}${loss === null ? "" : ", probability " + percent(loss)}`;
  const spans = kept.passage.querySelectorAll(".strip .tok");
  spans.forEach((span, at) => span.classList.toggle("under", at === x + 1));
  paint(kept);
}

function cellAt(kept, event) {
  const at = kept.canvas.getBoundingClientRect();
  const { cell, height } = size(kept);
  const x = Math.floor((event.clientX - at.left - NAMES) / cell);
  const y = Math.floor((event.clientY - at.top) / height);
  const inside = x >= 0 && x < kept.data.tokens.length - 1 && y >= 0 && y < kept.data.epochs.length;
  return inside ? { x, y } : null;
}

function choose(kept, epoch, quiet) {
  kept.epoch = epoch;
  draw(kept);
  if (!quiet) window.dispatchEvent(new CustomEvent("gptlab:epoch", { detail: { run: kept.data.run, epoch, peek: false, from: kept } }));
}

function draw(kept) {
  const { epochs, tokens, losses, means } = kept.data;
  const y = row(kept);
  const mean = means[y];
  kept.title.textContent = epochs[y] === 0 ? "Before training" : "After epoch " + epochs[y];
  kept.mean.textContent = mean === null ? "" : `mean loss ${mean.toFixed(3)}, perplexity ${Math.exp(mean).toPrecision(3)}`;
  const shown = tokens.map((token, at) => ({
    ...token,
    text: token.text.replace(/\s*\n\s*/g, " "),
    ...(at === 0 ? { mark: "prompt", title: "first of the passage: nothing predicts it" } : { p: losses[y][at - 1] === null ? undefined : Math.exp(-losses[y][at - 1]), plain: true, title: nats(losses[y][at - 1]) }),
  }));
  kept.cleanup = token_strip({
    parentElement: kept.passage,
    setTriggerValue: (name, pressed) => kept.setTriggerValue(name, pressed),
    data: { tokens: shown, label: "The passage " + kept.title.textContent.toLowerCase(), legend: true, empty: "", pressable: true, hint: "Press: where it comes from" },
  });
  paint(kept);
  if (kept.details.open) table(kept);
}

// The same in numbers, made only when it is opened.

function table(kept) {
  const { epochs, tokens, losses } = kept.data;
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const name of ["token", ...epochs.map(named)]) head.append(Object.assign(element("th", "", name), { scope: "col" }));
  const body = made.createTBody();
  tokens.slice(1).forEach((token, x) => {
    const line = body.insertRow();
    line.insertCell().textContent = visible(token.text);
    for (const values of losses) line.insertCell().textContent = values[x] === null ? "–" : values[x].toFixed(2);
  });
  kept.scroll.replaceChildren(made);
}

function build(root) {
  const host = element("div", "heat");
  const kept = { host, cursor: { x: null, y: 0 }, epoch: null };
  const head = element("div", "heat-head");
  kept.title = element("b");
  kept.mean = element("span");
  kept.told = element("div", "heat-told", "Point at a cell, or walk through them with the arrow keys.");
  kept.told.setAttribute("aria-live", "polite");
  head.append(kept.title, kept.mean);
  kept.picture = element("div", "heat-picture");
  kept.canvas = element("canvas");
  kept.canvas.tabIndex = 0;
  kept.canvas.setAttribute("role", "img");
  kept.canvas.setAttribute("aria-label", "Loss of each token, from left to right, in each epoch, from top to bottom. The arrow keys walk through it.");
  kept.mark = element("div", "heat-mark");
  kept.box = element("div", "heat-box");
  kept.box.hidden = true;
  kept.picture.append(kept.canvas, kept.mark, kept.box);
  const scale = element("div", "heat-scale");
  scale.append("0 nats, certain", element("i"), MOST + " nats and more, a surprise");
  kept.passage = element("div", "heat-passage");
  kept.details = element("details");
  kept.scroll = element("div", "heat-scroll");
  kept.scroll.tabIndex = 0;
  kept.details.append(element("summary", "", "The numbers as a table"), kept.scroll);
  kept.details.addEventListener("toggle", () => kept.details.open && table(kept));
  host.append(head, kept.picture, scale, kept.told, kept.passage, kept.details);
  root.append(host);
  kept.canvas.addEventListener("pointermove", (event) => {
    const at = cellAt(kept, event);
    if (at) read(kept, at.x, at.y);
  });
  kept.canvas.addEventListener("click", (event) => {
    const at = cellAt(kept, event);
    if (at) choose(kept, kept.data.epochs[at.y]);
  });
  kept.canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { x, y } = kept.cursor;
    if (event.key === "Enter" && x !== null) choose(kept, kept.data.epochs[y]);
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [dx, dy] = x === null ? [0, 0] : moves[event.key];
    read(kept, Math.max(0, Math.min(kept.data.tokens.length - 2, (x ?? 0) + dx)), Math.max(0, Math.min(kept.data.epochs.length - 1, y + dy)));
  });
  kept.heard = ({ detail }) => {
    if (detail.from === kept || detail.run !== kept.data.run || detail.peek) return;
    const near = kept.data.epochs.reduce((best, epoch) => (Math.abs(epoch - detail.epoch) < Math.abs(best - detail.epoch) ? epoch : best));
    choose(kept, near, true);
  };
  window.addEventListener("gptlab:epoch", kept.heard);
  kept.sized = new ResizeObserver(() => kept.data && paint(kept));
  kept.sized.observe(kept.picture);
  return kept;
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let kept = state.get(parentElement);
  if (!kept || !kept.host.isConnected) {
    kept = build(parentElement);
    state.set(parentElement, kept);
  }
  const first = !kept.data;
  const followed = first || kept.epoch === kept.data.epochs.at(-1);
  const other = kept.data && kept.data.tokens.length !== data.tokens.length;
  kept.data = data;
  kept.setTriggerValue = setTriggerValue;
  if (other || kept.cursor.y >= data.epochs.length) kept.cursor = { x: null, y: 0 };
  if (followed || !data.epochs.includes(kept.epoch)) kept.epoch = data.epochs.at(-1);
  if (first && data.epochs.includes(data.asked)) kept.epoch = data.asked;
  draw(kept);
  return () => {
    kept.cleanup?.();
    kept.sized.disconnect();
    window.removeEventListener("gptlab:epoch", kept.heard);
    state.delete(parentElement);
  };
}
