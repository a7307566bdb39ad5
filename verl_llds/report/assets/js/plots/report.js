/** The report: runs, figures, and what is common to all plots. */
async function startReport() {
  const { runs, figures } = await blockValue("data-report");
  const steps = runs.flatMap((run) => run.steps);
  const state = {
    runs,
    steps: steps.length ? [Math.min(...steps), Math.max(...steps)] : [0, 1],
    range: null,
    hiddenRuns: new Set(),
    shaded: runs[0],
    visibleRuns: () => runs.filter((run) => !state.hiddenRuns.has(run)),
    isHidden: () => document.getElementById("report").hidden,
    plotly: once(loadPlotly),
  };
  const panels = [];
  const add = (panel) => {
    const made = makePanel(panel, state);
    panels.push(made);
    return made.node;
  };
  state.redraw = () => Promise.all(panels.map((panel) => panel.draw()));
  state.zoom = (range) => {
    state.range = range && [Math.round(range[0]), Math.round(range[1])];
    controls.showRange();
    state.redraw();
  };
  runs.forEach(drawRibbon);
  document.getElementById("figures").append(...figures.map((figure) => makeFigure(figure, add)), makeExplorer(state, add));
  fillContents(figures);
  const controls = makeControls(state);
  return state;
}

function once(make) {
  let made;
  return () => (made ??= make());
}

/** plotly comes compressed, and runs under the page's policy by its hash. */
async function loadPlotly() {
  await afterPaint();
  const script = document.createElement("script");
  script.textContent = await blockText("code-plotly");
  document.head.append(script);
  return window.Plotly;
}

function makeFigure(figure, add) {
  return element("section", { class: "figure", id: figure.key, "aria-labelledby": `title-${figure.key}` },
    element("header", {},
      element("h2", { id: `title-${figure.key}` }, figure.title),
      figure.source && element("span", { class: "source", title: "arXiv 2512.04220 v2" }, `paper, ${figure.source}`)),
    element("p", { class: "reading" }, figure.reading),
    element("div", { class: "panels" }, figure.panels.map(add)));
}

/** Any logged metric, chosen by name. */
function makeExplorer(state, add) {
  const names = [...new Set(state.runs.flatMap((run) => Object.keys(run.columns)))].sort();
  const of = (name) => ({ title: name, unit: "as logged", curves: [{ label: name, metrics: [name] }] });
  const panel = { key: "any", prefix: "", omit: [], shape: "lines", remedy: "", ...of(names[0] ?? "") };
  const node = add(panel);
  const select = choice(names.map((name) => [name, name]), (name) => {
    Object.assign(panel, of(name));
    node.querySelector("h3").firstChild.textContent = name;
    state.redraw();
  });
  return element("section", { class: "figure", id: "any", "aria-labelledby": "title-any" },
    element("header", {}, element("h2", { id: "title-any" }, "Any logged metric")),
    field("Metric", select), element("div", { class: "panels" }, node));
}

function fillContents(figures) {
  const links = [...figures, { key: "any", title: "Any logged metric" }];
  const go = (key) => (event) => {
    event.preventDefault();
    document.getElementById(key).scrollIntoView();
    document.getElementById(`title-${key}`).focus();
  };
  document.getElementById("contents").append(...links.map(({ key, title }) =>
    element("a", { href: `#report/${key}`, onclick: go(key) }, title)));
  for (const { key } of links) document.getElementById(`title-${key}`).tabIndex = -1;
}

/** A run's phases as a strip under its verdict. */
function drawRibbon(run, place) {
  const ribbon = document.getElementById(`ribbon-${place}`);
  const total = run.spans.reduce((sum, span) => sum + span.last - span.first + 1, 0);
  ribbon.setAttribute("role", "img");
  ribbon.setAttribute("aria-label", run.spans.map((span) => `${span.phase}, steps ${span.first} to ${span.last}`).join("; "));
  ribbon.append(...run.spans.map((span) => {
    const share = (span.last - span.first + 1) / total;
    const steps = span.first === span.last ? `${span.first}` : `${span.first}\u2013${span.last}`;
    const part = element("span", { class: `phase-${span.number} ${share < 0.09 ? "narrow" : ""}`, title: `${span.phase}, steps ${steps}` }, `${span.phase} ${steps}`);
    part.style.flexGrow = String(span.last - span.first + 1);
    part.style.flexBasis = "0";
    return part;
  }));
}
