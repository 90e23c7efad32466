// A table whose long texts wrap and whose rows can be chosen, where that is wanted. Text through textContent only.

const kept = new WeakMap();

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let host = kept.get(parentElement);
  if (!host || host.parentNode !== parentElement) {
    for (const left of parentElement.querySelectorAll(":scope > .tt")) left.remove();
    host = document.createElement("div");
    host.className = "tt";
    parentElement.append(host);
    kept.set(parentElement, host);
  }
  host.className = data.scrolls ? "tt scrolls" : "tt";
  if (data.scrolls) host.tabIndex = 0; // what scrolls can be reached by the keyboard
  const table = document.createElement("table");
  table.setAttribute("aria-label", data.label);
  const head = table.createTHead().insertRow();
  for (const column of data.columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = column.name;
    if (column.kind) cell.className = column.kind === "number" ? "number" : "";
    head.append(cell);
  }
  const body = table.createTBody();
  data.rows.forEach((row, index) => {
    const line = body.insertRow();
    line.className = index === data.chosen ? "chosen" : "";
    row.forEach((text, place) => {
      const cell = line.insertCell();
      cell.className = [data.columns[place].kind ?? "", place === 0 ? "first" : ""].join(" ").trim();
      cell.dataset.name = data.columns[place].name;
      if (place !== 0 || !data.pressable) {
        cell.textContent = text;
        return;
      }
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      if (index === data.chosen) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => {
        if (!data.epochs) setTriggerValue("chosen", index);
        else window.dispatchEvent(new CustomEvent("gptlab:epoch", { detail: { run: data.run, epoch: data.epochs[index], peek: false } }));
      });
      cell.append(button);
    });
  });
  const focused = host.getRootNode().activeElement;
  const place = focused ? [...host.querySelectorAll("button")].indexOf(focused) : -1;
  host.replaceChildren(table);
  if (place >= 0) host.querySelectorAll("button")[place]?.focus();
  const heard = ({ detail }) => {
    if (!data.epochs || detail.run !== data.run || detail.peek) return;
    [...table.tBodies[0].rows].forEach((line, index) => {
      const chosen = data.epochs[index] === detail.epoch;
      line.className = chosen ? "chosen" : "";
      const button = line.querySelector("button");
      if (chosen) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    host.chosen = detail.epoch;
  };
  host.listener && window.removeEventListener("gptlab:epoch", host.listener);
  host.listener = heard;
  window.addEventListener("gptlab:epoch", heard);
  if (data.epochs?.includes(host.chosen)) heard({ detail: { run: data.run, epoch: host.chosen, peek: false } });
  return () => {
    window.removeEventListener("gptlab:epoch", host.listener);
    kept.delete(parentElement);
  };
}
