// How something stands: a chip, a line, a bar, figures. Updated in place, text through textContent only.

const state = new WeakMap();

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

const say = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

function build(root) {
  const host = element("div", "sc");
  const head = element("div", "sc-head");
  const chip = element("span", "sc-chip");
  chip.setAttribute("role", "status");
  const line = element("span", "sc-line");
  const said = element("span", "sc-said");
  said.setAttribute("aria-live", "polite");
  head.append(chip, line, said);
  const bar = element("div", "sc-bar");
  bar.setAttribute("role", "progressbar");
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", "100");
  bar.setAttribute("aria-label", "Training progress");
  const fill = element("div", "sc-fill");
  bar.append(fill);
  const facts = element("dl", "sc-facts");
  host.append(head, bar, facts);
  root.append(host);
  return { host, chip, line, said, bar, fill, facts };
}

function show(kept, data) {
  kept.shown = data;
  kept.chip.className = "sc-chip " + data.tone;
  say(kept.chip, data.chip);
  say(kept.line, data.line);
  say(kept.said, data.said);
  kept.bar.hidden = data.done === null;
  if (data.done !== null) {
    kept.fill.style.width = 100 * data.done + "%";
    kept.bar.setAttribute("aria-valuenow", String(Math.round(100 * data.done)));
  }
  data.facts.forEach(([name, value, note], place) => {
    let fact = kept.facts.children[place];
    if (!fact) {
      fact = element("div");
      fact.append(element("dt"), element("dd"), element("dd", "sc-note"));
      kept.facts.append(fact);
    }
    say(fact.children[0], name);
    say(fact.children[1], value);
    say(fact.children[2], note ?? "");
  });
  while (kept.facts.children.length > data.facts.length) kept.facts.lastChild.remove();
}

// A live card asks for its next version. What else is new on its page is drawn by the server, when it is told to.

const PAUSE = 3000; // milliseconds at least from one such drawing to the next, for anything but another status

function hear(kept, { status, text }) {
  if (status === 404) return redraw(kept, "gone", "");
  if (status !== 200) return;
  const news = JSON.parse(text);
  if (news.at < kept.data.at) return; // made before the page was drawn
  show(kept, news);
  const { live } = kept.data, now = news.live ?? { status: "over", revision: "" };
  if (now.status !== live.status) redraw(kept, now.status, "");
  else if (now.revision !== live.revision && performance.now() - kept.drawn > PAUSE) redraw(kept, now.status, now.revision);
}

function redraw(kept, status, revision) {
  const wish = status + " " + revision;
  if (wish === kept.wish && performance.now() - kept.drawn < PAUSE) return; // asked for already
  kept.wish = wish;
  kept.drawn = performance.now();
  kept.changed(wish);
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  let kept = state.get(parentElement);
  if (!kept || kept.host.parentNode !== parentElement) {
    kept = build(parentElement);
    state.set(parentElement, kept);
  }
  const same = kept.data?.live?.url === data.live?.url;
  kept.data = data;
  kept.changed = (wish) => setTriggerValue("changed", wish);
  if (!same || !(kept.shown?.at > data.at)) show(kept, data);
  if (!same || !kept.stop) {
    kept.stop?.();
    kept.drawn = performance.now();
    kept.stop = data.live ? poll({ url: () => kept.data.live.url, every: 1000, use: (answer) => hear(kept, answer) }) : null;
  }
  return () => {
    kept.stop?.();
    state.delete(parentElement);
  };
}
