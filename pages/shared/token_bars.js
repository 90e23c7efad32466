// Probabilities of tokens as bars, before and after the decoding settings. Text through textContent only.

const state = new WeakMap();
const GLYPHS = { " ": "\u00b7", "\t": "\u21e5", "\n": "\u21b5", "\r": "\u240d" };
const visible = (text) => text.replace(/[ \t\n\r]/g, (mark) => GLYPHS[mark]) || "(empty)";
const percent = (p) => (p === 0 ? "0" : p >= 0.9995 ? "100 %" : p >= 0.1 ? (100 * p).toFixed(1) + " %" : p >= 1e-4 ? (100 * p).toPrecision(2) + " %" : "<0.01 %");

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

function row(both) {
  const line = element("tr");
  const name = element("td", "name");
  const track = element("td");
  const bars = element("div", "track");
  if (both) bars.append(element("i", "before"));
  bars.append(element("i", "after"));
  track.append(bars);
  line.append(name, track, element("td", "share"));
  return line;
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let kept = state.get(parentElement);
  const both = data.rows.some((item) => typeof item.before === "number");
  if (!kept || !kept.host.isConnected || kept.both !== both) {
    kept?.host.remove();
    const host = element("div");
    parentElement.append(host);
    const table = element("table", both ? "bars" : "bars alone");
    const head = table.createTHead().insertRow();
    head.append(element("th", "name", "token"), element("th", "", ""), element("th", "share", ""));
    table.createTBody();
    host.append(table, element("div", "empty"));
    kept = { host, table, both };
    state.set(parentElement, kept);
  }
  const { table } = kept;
  table.setAttribute("aria-label", data.label);
  table.tHead.rows[0].cells[1].textContent = both ? "thin: the model, thick: these settings" : data.unit === "cosine" ? "cosine" : "probability";
  table.hidden = !data.rows.length;
  kept.host.lastChild.textContent = data.rows.length ? "" : data.empty;
  const body = table.tBodies[0];
  while (body.rows.length > data.rows.length) body.lastChild.remove();
  const longest = Math.max(1e-9, ...data.rows.flatMap((item) => [item.p, item.before ?? 0]));
  data.rows.forEach((item, index) => {
    let line = body.rows[index];
    if (!line) {
      line = row(both);
      body.append(line);
    }
    line.className = [item.chosen ? "chosen" : "", both && item.p === 0 ? "gone" : ""].join(" ").trim();
    const cell = line.cells[0];
    const wanted = data.pressable ? "BUTTON" : "SPAN";
    if (cell.firstChild?.tagName !== wanted) {
      cell.replaceChildren(element(wanted.toLowerCase()));
      if (data.pressable) cell.firstChild.type = "button";
    }
    const name = cell.firstChild;
    name.textContent = (item.chosen ? "\u25b8" : "") + visible(item.text);
    name.title = `${visible(item.text)} (id ${item.id})`;
    if (data.pressable) name.onclick = () => setTriggerValue("chosen", item.id);
    const bars = line.cells[1].firstChild;
    if (both) bars.querySelector(".before").style.width = (100 * (item.before ?? 0)) / longest + "%";
    bars.querySelector(".after").style.width = (100 * item.p) / longest + "%";
    bars.querySelector(".after").hidden = item.p === 0;
    line.cells[2].textContent = data.unit === "cosine" ? item.p.toFixed(2) : percent(item.p);
    line.cells[2].title = both ? `${percent(item.before ?? 0)} by the model itself` : "";
  });
  return () => state.delete(parentElement);
}
