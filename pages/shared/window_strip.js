// A training window: what is read above, what must be predicted below. All text reaches the page through textContent.

const state = new WeakMap();
const GLYPHS = { " ": "\u00b7", "\t": "\u21e5", "\n": "\u21b5", "\r": "\u240d" };
const FIRST_PLACE = 4;

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const visible = (text) => text.replace(/[ \t\n\r]/g, (mark) => GLYPHS[mark]);

function tell(kept) {
  const { inputs, targets } = kept;
  const at = kept.at;
  kept.told.textContent = "";
  if (!inputs.length) return;
  const read = inputs.slice(0, at + 1).map(([, text]) => text).join("");
  const shown = read.length > 120 ? "\u2026 " + read.slice(-120) : read;
  const [id, text] = targets[at];
  const seen = at === 0 ? "the first token" : `the first ${at + 1} tokens`;
  kept.told.append(
    element("span", "dim", `Place ${at + 1} of ${kept.length}. `), `Having read ${seen}, \u201c`,
    element("span", "read", shown.replace(/\s+/g, " ")), "\u201d, the model must predict ",
    element("span", "aim", visible(text)), element("span", "dim", ` (id ${id})`), ".",
  );
  [...kept.places.children].forEach((cell, index) => {
    cell.className = "place " + (index < at ? "earlier" : index === at ? "here" : "later");
    cell.setAttribute("tabindex", index === at ? "0" : "-1");
    cell.setAttribute("aria-pressed", String(index === at));
  });
}

function go(kept, at, focus) {
  kept.at = Math.max(0, Math.min(kept.inputs.length - 1, at));
  tell(kept);
  if (focus) kept.places.children[kept.at]?.focus();
}

function build(root) {
  const host = element("div");
  const told = element("p", "told");
  told.setAttribute("aria-live", "polite");
  const rows = element("div", "rows");
  const names = element("div", "names");
  names.append(element("span", "", "reads"), element("span"), element("span", "", "predicts"));
  const places = element("div", "places");
  places.setAttribute("role", "group");
  places.setAttribute("aria-label", "Places of the window: what is read, what must be predicted");
  const more = element("div", "more");
  rows.append(names, places);
  host.append(told, rows, more);
  root.append(host);
  const kept = { host, told, places, more, inputs: [], targets: [], length: 0, at: FIRST_PLACE };
  const index = (event) => {
    const cell = event.target.closest?.(".place");
    return cell ? [...places.children].indexOf(cell) : -1;
  };
  places.addEventListener("click", (event) => index(event) >= 0 && go(kept, index(event), false));
  places.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: kept.at + 1, ArrowLeft: kept.at - 1, Home: 0, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    go(kept, steps[event.key], true);
  });
  return kept;
}

export default function (component) {
  const { data, parentElement } = component;
  let kept = state.get(parentElement);
  if (!kept || kept.host.parentNode !== parentElement) {
    kept = build(parentElement);
    state.set(parentElement, kept);
  }
  kept.inputs = data.inputs;
  kept.targets = data.targets;
  kept.length = data.inputs.length + data.more;
  while (kept.places.children.length > data.inputs.length) kept.places.lastChild.remove();
  data.inputs.forEach(([id, text], at) => {
    let cell = kept.places.children[at];
    if (!cell) {
      cell = element("button");
      cell.type = "button";
      cell.append(element("span"), element("i", "", "\u2193"), element("span"));
      kept.places.append(cell);
    }
    const [targetId, targetText] = data.targets[at];
    cell.children[0].className = "input a" + (at % 4);
    cell.children[0].textContent = visible(text);
    cell.children[2].className = "target a" + ((at + 1) % 4);
    cell.children[2].textContent = visible(targetText);
    cell.title = `reads ${id}, predicts ${targetId}`;
    cell.setAttribute("aria-label", `place ${at + 1}: reads ${visible(text)}, predicts ${visible(targetText)}`);
  });
  kept.more.textContent = data.more ? `${data.more} more places are not drawn.` : "";
  go(kept, Math.min(kept.at, Math.max(0, data.inputs.length - 1)), false);
  return () => state.delete(parentElement);
}
