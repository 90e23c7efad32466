// One chart that is updated in place. Streamlit calls the default function again whenever the data or the theme
// change, with the same parentElement: plotly's react() then redraws, and zoom and hidden lines stay as they are.

const state = new WeakMap();

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

function loadPlotly(url) {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  window.gptlabPlotly ??= new Promise((resolve, reject) => {
    const script = element("script");
    script.src = url;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      window.gptlabPlotly = undefined;
      reject(new Error("plotly could not be loaded"));
    };
    document.head.append(script);
  });
  return window.gptlabPlotly;
}

function build(root) {
  for (const left of root.querySelectorAll(":scope > .lc")) left.remove();
  const host = element("div", "lc");
  const legend = element("div", "lc-legend");
  legend.setAttribute("role", "group");
  legend.setAttribute("aria-label", "Lines of the chart");
  const stage = element("div", "lc-stage");
  const plot = element("div", "lc-plot");
  plot.setAttribute("role", "img");
  const note = element("div", "lc-note");
  stage.append(plot, note);
  const foot = element("div", "lc-foot");
  const details = element("details");
  const summary = element("summary", "", "The numbers as a table");
  const scroll = element("div", "lc-scroll");
  scroll.tabIndex = 0;
  details.append(summary, scroll);
  host.append(legend, stage, foot, details);
  root.append(host);
  const kept = { host, legend, plot, note, foot, details, scroll, hidden: new Set(), drawn: false, revision: null };
  details.addEventListener("toggle", () => drawTable(kept));
  kept.heard = ({ detail }) => {
    if (detail.from === kept || detail.peek || detail.run !== kept.latest.run || !kept.latest.epochs) return;
    kept.epoch = detail.epoch;
    if (kept.drawn) kept.Plotly.relayout(kept.plot, { shapes: markOf(kept) });
  };
  window.addEventListener("gptlab:epoch", kept.heard);
  return kept;
}

// Colours come from the page's theme; a dark page has its own, lighter variants of the lines' colours.

function theme(root) {
  const probe = root.getRootNode().host ?? root;
  const style = getComputedStyle(probe instanceof Element ? probe : document.body);
  const value = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = value("--st-background-color", "#ffffff");
  const hex = canvas.fillStyle;
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return {
    dark: 0.299 * r + 0.587 * g + 0.114 * b < 128,
    paper: hex,
    text: value("--st-text-color", "#222222"),
    grid: value("--st-border-color", "#dddddd"),
    font: value("--st-font", "sans-serif"),
  };
}

function recolour(figure, dark) {
  let text = JSON.stringify(figure);
  for (const [light, variant] of Object.entries(dark)) text = text.replaceAll(JSON.stringify(light), JSON.stringify(variant));
  return JSON.parse(text);
}

function dress(figure, look, kept, narrow) {
  const { layout } = figure;
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
  layout.font = { family: look.font, color: look.text, size: narrow ? 11 : 12.5 };
  layout.hoverlabel = { bgcolor: look.paper, bordercolor: look.grid, font: { color: look.text, family: look.font, size: 12 }, align: "left" };
  layout.autosize = true;
  for (const [name, axis] of Object.entries(layout)) {
    if (!/^[xy]axis/.test(name)) continue;
    axis.gridcolor ??= look.grid;
    axis.linecolor = look.grid;
    axis.spikecolor = look.text;
    axis.tickfont = { ...axis.tickfont, size: narrow ? 10 : 11.5 };
    axis.title = { ...axis.title, font: { size: narrow ? 10.5 : 12 } };
    if (narrow && name.startsWith("x")) axis.nticks = 6;
  }
  if (narrow) layout.margin = { ...layout.margin, l: 46, r: 6 };
  layout.shapes = markOf(kept);
  for (const trace of figure.data) trace.visible = kept.hidden.has(trace.group ?? trace.uid) ? false : true;
  return figure;
}

// The top axis shows the same stretch in other units. It has no rows of its own, so its range is set by hand.

function topRange(layout, range) {
  const { factor } = layout.xaxis2 ?? {};
  if (!factor || !range) return null;
  return layout.xaxis.type === "log" ? range.map((x) => x + Math.log10(factor)) : range.map((x) => x * factor);
}

function followZoom(kept) {
  kept.plot.on("plotly_relayout", (change) => {
    if (!Object.keys(change).some((name) => /^xaxis\.(range|autorange)/.test(name))) return;
    const wanted = topRange(kept.layout, kept.plot.layout.xaxis.range);
    if (wanted) kept.Plotly.relayout(kept.plot, { "xaxis2.range": wanted });
  });
}

// The samples on the page belong to an epoch: the one under the pointer here, or the one that was chosen there.

function nearestEpoch(kept, x) {
  let best = null;
  for (const [at, epoch] of kept.latest.epochs ?? []) if (best === null || Math.abs(at - x) <= Math.abs(best[0] - x)) best = [at, epoch];
  return best?.[1] ?? null;
}

function markOf(kept) {
  const at = kept.latest.epochs?.find(([, epoch]) => epoch === kept.epoch)?.[0];
  if (at === undefined) return [];
  const { text } = theme(kept.root);
  return [{ type: "line", xref: "x", yref: "paper", x0: at, x1: at, y0: 0, y1: 1, line: { color: text, width: 1.5, dash: "dot" }, opacity: 0.75, layer: "below" }];
}

function tellEpoch(kept, epoch, peek) {
  window.dispatchEvent(new CustomEvent("gptlab:epoch", { detail: { run: kept.latest.run, epoch, peek, from: kept } }));
}

function followEpochs(kept) {
  const over = (event) => event.xvals?.[0] ?? event.points?.[0]?.x;
  kept.plot.on("plotly_hover", (event) => kept.latest.epochs && tellEpoch(kept, nearestEpoch(kept, over(event)), true));
  kept.plot.on("plotly_unhover", () => kept.latest.epochs && tellEpoch(kept, null, true));
  kept.plot.on("plotly_click", (event) => {
    if (!kept.latest.epochs) return;
    kept.epoch = nearestEpoch(kept, over(event));
    tellEpoch(kept, kept.epoch, false);
    kept.Plotly.relayout(kept.plot, { shapes: markOf(kept) });
  });
}

async function draw(kept, data, look) {
  const Plotly = (kept.Plotly = await loadPlotly(data.plotly));
  // Streamlit may call before it has put the element into the page, where it has no width yet.
  for (let frame = 0; frame < 600 && !kept.host.isConnected; frame++) await new Promise(requestAnimationFrame);
  if (kept.latest !== data || !kept.host.isConnected) return; // newer data came meanwhile
  const narrow = kept.host.clientWidth < 560;
  const figure = dress(look.dark ? recolour(data.figure, data.dark) : structuredClone(data.figure), look, kept, narrow);
  const sameRevision = kept.revision === figure.layout.uirevision;
  const shown = sameRevision && kept.drawn ? kept.plot.layout?.xaxis : null;
  const zoomed = shown && kept.home && String(shown.range) !== String(kept.home) && !shown.autorange;
  kept.layout = figure.layout;
  const home = [...figure.layout.xaxis.range]; // plotly writes the zoom into the array that it is given
  const top = topRange(figure.layout, zoomed ? shown.range : figure.layout.xaxis.range);
  if (figure.layout.xaxis2) {
    figure.layout.xaxis2.range = top ?? [0, 1];
    figure.layout.xaxis2.autorange = false;
    figure.layout.xaxis2.uirevision = Math.random(); // ours to set, never kept
    figure.data.push({ x: [1], y: [null], xaxis: "x2", yaxis: "y", type: "scatter", uid: "top axis", hoverinfo: "skip", showlegend: false });
  }
  await Plotly.react(kept.plot, figure.data, figure.layout, {
    displaylogo: false,
    responsive: true,
    displayModeBar: false,
    scrollZoom: false,
    doubleClick: "reset",
    showTips: false,
  });
  kept.home = home;
  if (!kept.drawn) followZoom(kept);
  if (!kept.drawn) followEpochs(kept);
  kept.drawn = true;
  kept.revision = figure.layout.uirevision;
  if (figure.layout.xaxis2 && figure.layout.xaxis.autorange) {
    const range = topRange(figure.layout, kept.plot.layout.xaxis.range);
    if (range) await Plotly.relayout(kept.plot, { "xaxis2.range": range });
  }
  kept.plot.dataset.points = String(figure.data.reduce((sum, trace) => sum + (trace.x?.length ?? 0), 0));
}

const NS = "http://www.w3.org/2000/svg";
const DASHES = { dash: "6 4", dot: "2 3", dashdot: "6 3 2 3", longdash: "9 4", longdashdot: "9 3 2 3", solid: "" };
const SHAPES = {
  circle: "M12 3.2a2.8 2.8 0 1 0 .01 0z", diamond: "M12 2l4 4-4 4-4-4z", square: "M9 3h6v6H9z", "triangle-up": "M12 2l4 7H8z",
  star: "M12 0l1.6 4.1 4.4.2-3.5 2.7 1.3 4.2L12 8.8 8.2 11.2 9.5 7 6 4.3l4.4-.2z", x: "M9 3l6 6m0-6l-6 6", cross: "M12 2v8m-4-4h8", "triangle-down": "M12 10l4-7H8z",
};

function swatch(trace) {
  const svg = document.createElementNS(NS, "svg");
  for (const [name, value] of [["width", 24], ["height", 12], ["viewBox", "0 0 24 12"], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
  const part = (tag, attributes) => {
    const made = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    svg.append(made);
  };
  if (trace.fill) part("rect", { width: 24, height: 12, rx: 2, fill: trace.fillcolor });
  else if (trace.mode.includes("lines"))
    part("line", { x1: 0, x2: 24, y1: 6, y2: 6, stroke: trace.line.color, "stroke-width": Math.max(1.5, trace.line.width), "stroke-opacity": trace.opacity,
      "stroke-dasharray": DASHES[trace.line.dash] ?? "" });
  if (trace.marker?.symbol)
    part("path", { d: SHAPES[trace.marker.symbol] ?? SHAPES.circle, fill: trace.marker.color, stroke: trace.marker.color, "stroke-opacity": 0.9 });
  return svg;
}

function drawLegend(kept, data, look) {
  const traces = (look.dark ? recolour(data.figure, data.dark) : data.figure).data.filter((trace) => trace.legend_text);
  const signature = JSON.stringify([look.dark, traces.map((trace) => [trace.uid, trace.legend_text])]);
  if (kept.legendSignature === signature) return;
  kept.legendSignature = signature;
  kept.legend.textContent = "";
  for (const trace of traces) {
    const button = element("button");
    button.type = "button";
    button.dataset.line = trace.uid;
    button.append(swatch(trace), element("span", "", trace.legend_text));
    button.setAttribute("aria-pressed", String(!kept.hidden.has(trace.uid)));
    button.title = "Show or hide this line";
    button.addEventListener("click", () => toggle(kept, trace.uid, button));
    kept.legend.append(button);
  }
}

function toggle(kept, uid, button) {
  if (!kept.hidden.delete(uid)) kept.hidden.add(uid);
  button.setAttribute("aria-pressed", String(!kept.hidden.has(uid)));
  if (!kept.drawn) return;
  const places = kept.plot.data.map((trace, place) => ((trace.group ?? trace.uid) === uid ? place : -1)).filter((place) => place >= 0);
  kept.Plotly.restyle(kept.plot, { visible: !kept.hidden.has(uid) }, places);
}

function drawFoot(kept, data) {
  const signature = JSON.stringify([data.csv, data.name, Boolean(data.table)]);
  if (kept.footSignature === signature) return;
  kept.footSignature = signature;
  kept.foot.textContent = "";
  kept.foot.append(element("span", "lc-hint", "Drag to zoom, double-click to see all."));
  const png = element("button", "lc-png", "PNG");
  png.type = "button";
  png.title = "Download this chart as a picture";
  png.addEventListener("click", () => {
    const { dark, paper } = theme(kept.root);
    kept.drawn && kept.Plotly.downloadImage({ data: kept.plot.data, layout: { ...kept.plot.layout, paper_bgcolor: paper, plot_bgcolor: paper }, config: {} },
      { format: "png", filename: kept.latest.name + (dark ? "-dark" : ""), width: 1200, height: kept.plot.clientHeight * 1.2, scale: 2 });
  });
  if (!data.csv && data.table) {
    const csv = element("button", "lc-csv", "CSV");
    csv.type = "button";
    csv.title = "Download the numbers of this chart as CSV";
    csv.addEventListener("click", () => saveTable(kept.latest));
    kept.foot.append(csv);
  }
  if (data.csv) {
    const csv = element("a", "lc-button lc-csv", "CSV");
    csv.href = data.csv;
    csv.setAttribute("download", "");
    csv.title = "Download every step and evaluation as CSV";
    kept.foot.append(csv);
  }
  kept.foot.append(png);
}

// The table as a file: a cell that holds a comma, a quote or a line break stands in quotes; one that a spreadsheet would
// take for a formula is led by an apostrophe.
function saveTable({ table, name }) {
  const cell = (text) => {
    const safe = /^[=+@\t\r]|^-(?![\d.]|$)/.test(text) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };
  const lines = [table.columns, ...table.rows].map((row) => row.map((text) => cell(String(text))).join(","));
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = name + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function drawTable(kept) {
  const { table } = kept.latest;
  kept.details.hidden = !table;
  if (!table || !kept.details.open) return;
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const name of table.columns) {
    const cell = element("th", "", name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of table.rows) for (const [place, text] of row.entries()) (place ? body.lastChild : body.insertRow()).insertCell().textContent = text;
  const top = kept.scroll.scrollTop;
  kept.scroll.replaceChildren(made);
  kept.scroll.scrollTop = top;
}

function show(kept, data) {
  kept.latest = data;
  const look = theme(kept.root);
  kept.host.classList.toggle("idle", Boolean(data.note));
  kept.note.textContent = data.note ?? "";
  kept.plot.setAttribute("aria-label", data.label);
  kept.plot.style.minHeight = data.figure.layout.height + "px";
  drawLegend(kept, data, look);
  drawFoot(kept, data);
  drawTable(kept);
  return draw(kept, data, look).catch((error) => {
    kept.plot.textContent = "The chart could not be drawn (" + error.message + "). The numbers stand in the table below.";
    kept.plot.classList.add("lc-failed");
  });
}

export default function (component) {
  const { data, parentElement } = component;
  let kept = state.get(parentElement);
  if (!kept || kept.host.parentNode !== parentElement) {
    kept = build(parentElement);
    state.set(parentElement, kept);
  }
  kept.root = parentElement;
  const before = kept.latest;
  // where the chart has asked for itself meanwhile, what it shows is newer than what the page was drawn with
  show(kept, before && before.live === data.live && before.mark > data.mark ? before : data);
  if (!before || before.live !== data.live) {
    kept.stop?.();
    kept.stop = data.live && poll({
      url: () => kept.latest.live + "&since=" + kept.latest.mark,
      every: 1000,
      use: ({ status, text }) => status === 200 && show(kept, JSON.parse(text)),
    });
  }
  return () => {
    kept.stop?.();
    window.removeEventListener("gptlab:epoch", kept.heard);
    if (kept.drawn) kept.Plotly.purge(kept.plot);
    state.delete(parentElement);
  };
}
