// Attention: a grid of all heads, one of them large, and the text in which a token shows where it looks.

const state = new WeakMap();
const GLYPHS = { " ": "\u00b7", "\t": "\u21e5", "\n": "\u21b5", "\r": "\u240d" };
const visible = (text) => text.replace(/[ \t\n\r]/g, (mark) => GLYPHS[mark]);
const percent = (p) => (p >= 0.1 ? (100 * p).toFixed(0) : (100 * p).toPrecision(1)) + " %";
const INKS = { light: [0, 114, 178], dark: [86, 180, 233] };
const LOOKED_AT = 5;

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

function bytes(base64) {
  const raw = atob(base64);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) out[i] = raw.charCodeAt(i);
  return out;
}

// Light text stands on a dark page, and wants a brighter ink.
function inkOn(host) {
  const [r, g, b] = (getComputedStyle(host).color.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
  return r + g + b > 384 ? INKS.dark : INKS.light;
}

// side x side weights from 0 to 1, row = the token that looks; the square root makes small ones visible.
function paint(canvas, side, weight, ink) {
  canvas.width = side;
  canvas.height = side;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(side, side);
  for (let i = 0; i < side * side; i += 1) {
    image.data.set([...ink, Math.round(255 * Math.sqrt(weight(i)))], 4 * i);
  }
  pen.putImageData(image, 0, 0);
}

function tell(kept, from, to) {
  const { tokens, large } = kept;
  const T = tokens.length;
  kept.at = from;
  kept.bar.style.top = (100 * from) / T + "%";
  kept.bar.style.height = 100 / T + "%";
  const row = Array.from({ length: from + 1 }, (_, j) => large[from * T + j] / 65535);
  [...kept.text.children].forEach((span, j) => {
    span.className = j === from ? "here" : j > from ? "after" : "";
    span.style.background = j <= from ? `color-mix(in srgb, #0072b2 ${Math.round(85 * Math.sqrt(row[j]))}%, transparent)` : "";
    span.tabIndex = j === from ? 0 : -1;
  });
  kept.said.textContent = "";
  const most = row.map((p, j) => [p, j]).sort((a, b) => b[0] - a[0]).slice(0, LOOKED_AT);
  kept.said.append(element("b", "", visible(tokens[from])), ` (place ${from + 1}) looks at `);
  most.filter(([p]) => p >= 0.005).forEach(([p, j], index) => {
    kept.said.append(index ? ", " : "", element("b", "", visible(tokens[j])), ` ${percent(p)}`);
  });
  if (to !== undefined && to <= from) {
    kept.said.append(". Here: ", element("b", "", visible(tokens[to])), ` (place ${to + 1}) ${percent(row[to])}`);
  }
  kept.said.append(".");
}

function build(root) {
  const host = element("div", "att");
  const left = element("div");
  const heads = element("div", "heads");
  heads.setAttribute("role", "group");
  heads.setAttribute("aria-label", "Heads: rows are layers, columns heads");
  const gridTitle = element("p", "title");
  left.append(gridTitle, heads);
  const large = element("div", "large");
  const title = element("p", "title");
  const frame = element("div", "frame");
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  const bar = element("div", "row");
  frame.append(canvas, bar);
  const said = element("p", "said");
  said.setAttribute("aria-live", "polite");
  large.append(title, frame, said);
  const text = element("div", "text");
  text.setAttribute("aria-label", "The text: point at a token to see where it looks");
  host.append(left, large, text);
  root.append(host);
  const kept = { host, heads, gridTitle, title, canvas, bar, said, text, tokens: [], large: [], at: -1 };
  frame.addEventListener("pointermove", (event) => {
    const box = frame.getBoundingClientRect();
    const T = kept.tokens.length;
    const place = (share) => Math.max(0, Math.min(T - 1, Math.floor(share * T)));
    tell(kept, place((event.clientY - box.top) / box.height), place((event.clientX - box.left) / box.width));
  });
  const point = (event) => {
    const index = [...text.children].indexOf(event.target);
    if (index >= 0) tell(kept, index);
  };
  text.addEventListener("pointerover", point);
  text.addEventListener("click", point);
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    tell(kept, Math.max(0, Math.min(kept.tokens.length - 1, kept.at + step)));
    text.children[kept.at].focus();
  });
  return kept;
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let kept = state.get(parentElement);
  if (!kept || !kept.host.isConnected) {
    kept = build(parentElement);
    state.set(parentElement, kept);
  }
  const [layer, head] = data.chosen;
  const T = data.tokens.length;
  const raw = bytes(data.large);
  kept.large = new Uint16Array(raw.buffer);
  const ink = inkOn(kept.host);
  paint(kept.canvas, T, (i) => kept.large[i] / 65535, ink);
  kept.canvas.setAttribute("aria-label", `Attention of layer ${layer + 1}, head ${head + 1}: row looks at column`);
  kept.title.textContent = `Layer ${layer + 1}, head ${head + 1}: each row is a token, its ink where it looks`;
  kept.gridTitle.textContent = `${data.layers} layers by ${data.heads} heads`;
  if (kept.thumbs !== data.thumbs + ink) {
    kept.thumbs = data.thumbs + ink;
    const all = bytes(data.thumbs);
    const size = data.side * data.side;
    kept.heads.style.gridTemplateColumns = `max-content repeat(${data.heads}, minmax(1.4rem, ${data.heads > 6 ? "1fr" : "5rem"}))`;
    kept.heads.replaceChildren(element("span", "label"));
    for (let h = 0; h < data.heads; h += 1) kept.heads.append(element("span", "label", String(h + 1)));
    for (let l = 0; l < data.layers; l += 1) {
      kept.heads.append(element("span", "label", String(l + 1)));
      for (let h = 0; h < data.heads; h += 1) {
        const button = element("button");
        button.type = "button";
        button.dataset.place = `${l}-${h}`;
        button.title = `layer ${l + 1}, head ${h + 1}`;
        button.setAttribute("aria-label", button.title);
        const canvas = element("canvas");
        const from = (l * data.heads + h) * size;
        paint(canvas, data.side, (i) => all[from + i] / 255, ink);
        button.append(canvas);
        button.addEventListener("click", () => setTriggerValue("chosen", { layer: l, head: h }));
        kept.heads.append(button);
      }
    }
  }
  for (const button of kept.heads.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.place === `${layer}-${head}`));
  }
  if (kept.tokens.join("\u0000") !== data.tokens.join("\u0000")) {
    kept.text.replaceChildren(...data.tokens.map((piece) => element("span", "", piece)));
    kept.at = T - 1;
  }
  kept.tokens = data.tokens;
  tell(kept, Math.max(0, Math.min(kept.at, T - 1)));
  return () => state.delete(parentElement);
}
