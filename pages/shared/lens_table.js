// What each layer would say: rows are layers, columns places of the text. Text through textContent only.

const state = new WeakMap();
const GLYPHS = { " ": "\u00b7", "\t": "\u21e5", "\n": "\u21b5", "\r": "\u240d" };
const visible = (text) => text.replace(/[ \t\n\r]/g, (mark) => GLYPHS[mark]) || "(empty)";

export default function (component) {
  const { data, parentElement } = component;
  let kept = state.get(parentElement);
  if (!kept || !kept.host.isConnected) {
    const host = document.createElement("div");
    host.className = "lens";
    host.tabIndex = 0;
    parentElement.append(host);
    kept = { host, before: "" };
    state.set(parentElement, kept);
  }
  const now = JSON.stringify(data);
  if (now !== kept.before) {
    kept.before = now;
    const table = document.createElement("table");
    table.setAttribute("aria-label", data.label);
    const head = table.createTHead().insertRow();
    for (const text of [data.corner, ...data.columns.map(visible)]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = text;
      head.append(cell);
    }
    const body = table.createTBody();
    data.rows.forEach((row) => {
      const line = body.insertRow();
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = row.name;
      line.append(name);
      row.cells.forEach(([text, p], place) => {
        const cell = line.insertCell();
        cell.textContent = visible(text);
        cell.className = data.next[place] === text ? "right" : "";
        cell.title = `${visible(text)}, ${(100 * p).toPrecision(2)} %`;
        cell.style.background = `color-mix(in srgb, #0072b2 ${Math.round(6 + 64 * Math.sqrt(p))}%, transparent)`;
      });
    });
    kept.host.replaceChildren(table);
    kept.host.scrollLeft = kept.host.scrollWidth;
  }
  return () => state.delete(parentElement);
}
