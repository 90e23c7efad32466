// The charts of a report. Everything that it draws lies in the page; nothing is fetched.

const given = JSON.parse(document.getElementById("figures").textContent);
const night = matchMedia("(prefers-color-scheme: dark)");
const chosen = { axis: given.first, logX: false, logY: false };

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function recoloured(figure) {
  let text = JSON.stringify(figure);
  if (night.matches) for (const [light, dark] of Object.entries(given.dark)) text = text.replaceAll(JSON.stringify(light), JSON.stringify(dark));
  return JSON.parse(text);
}

function draw() {
  const { data, layout } = recoloured(given.figures[chosen.axis]);
  for (const trace of data) {
    trace.showlegend = Boolean(trace.legend_text);
    trace.name = trace.legend_text || trace.name;
  }
  layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
  layout.font = { family: "system-ui, sans-serif", color: style("--ink"), size: 12.5 };
  layout.hoverlabel = { bgcolor: style("--paper"), bordercolor: style("--line"), font: { color: style("--ink") } };
  layout.showlegend = true;
  layout.legend = { orientation: "h", x: 0, y: 1.03, yanchor: "bottom" };
  layout.height = 700;
  layout.margin = { ...layout.margin, t: 70 };
  delete layout.xaxis2;
  layout.xaxis.type = chosen.logX ? "log" : "linear";
  layout.yaxis.type = chosen.logY ? "log" : "linear";
  layout.xaxis.autorange = layout.yaxis.autorange = true;
  layout.yaxis.rangemode = chosen.logY ? "normal" : "tozero";
  layout.uirevision = JSON.stringify(chosen);
  for (const [name, axis] of Object.entries(layout)) if (/^[xy]axis/.test(name)) Object.assign(axis, { gridcolor: style("--line"), linecolor: style("--line"), spikecolor: style("--ink") });
  Plotly.react("chart", data, layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
}

for (const button of document.querySelectorAll("[data-axis]"))
  button.addEventListener("click", () => {
    chosen.axis = button.dataset.axis;
    for (const other of document.querySelectorAll("[data-axis]")) other.setAttribute("aria-pressed", String(other === button));
    draw();
  });
for (const button of document.querySelectorAll("[data-log]"))
  button.addEventListener("click", () => {
    chosen[button.dataset.log] = !chosen[button.dataset.log];
    button.setAttribute("aria-pressed", String(chosen[button.dataset.log]));
    draw();
  });
night.addEventListener("change", draw);
draw();
