/** What all figures show: which runs, which steps, whose phases. */
function makeControls(state) {
  const [least, most] = state.steps;
  const bound = (label, value) => element("input", { type: "number", min: least, max: most, value, step: 1, "aria-label": label, onchange: take });
  const from = bound("First step shown", least), to = bound("Last step shown", most);
  function take() {
    const range = [Number(from.value), Number(to.value)];
    if (range[0] < range[1]) state.zoom(range);
  }
  const showRange = () => {
    [from.value, to.value] = state.range ?? state.steps;
    reset.disabled = state.range === null;
  };
  const reset = button("All steps", () => state.zoom(null), { disabled: true });
  const place = document.getElementById("controls");
  if (state.runs.length > 1) place.append(runToggles(state), shadeChoice(state));
  place.append(
    element("div", { class: "field" }, element("span", { class: "quiet" }, "Steps (or drag over a plot)"), element("div", { class: "pair" }, from, "to", to, reset)),
    element("div", { class: "pair" },
      button("All metrics, CSV", () => downloadAll(state, "csv")), button("All metrics, JSON", () => downloadAll(state, "json"))));
  return { showRange };
}

function runToggles(state) {
  const toggles = state.runs.map((run, place) => {
    const toggle = button("", () => {
      if (!state.hiddenRuns.delete(run)) state.hiddenRuns.add(run);
      toggle.setAttribute("aria-pressed", String(!state.hiddenRuns.has(run)));
      state.redraw();
    }, { "aria-pressed": "true" });
    toggle.append(element("span", { class: `swatch swatch-${(place % SERIES_COLOURS) + 1}`, "aria-hidden": "true" }), visible(run.name));
    return toggle;
  });
  return element("div", { class: "field" }, element("span", { class: "quiet" }, "Runs"), element("div", { class: "runs" }, toggles));
}

function shadeChoice(state) {
  const options = [...state.runs.map((run, place) => [String(place), visible(run.name)]), ["", "none"]];
  return field("Phases shaded", choice(options, (place) => {
    state.shaded = place === "" ? null : state.runs[Number(place)];
    state.redraw();
  }));
}

/** One row a run and step. */
function downloadAll(state, kind) {
  const names = [...new Set(state.runs.flatMap((run) => Object.keys(run.columns)))].sort();
  if (kind === "json") {
    const data = state.runs.map(({ name, spans, steps, columns }) => ({ name, spans, steps, columns }));
    return download("metrics.json", JSON.stringify(data), "application/json");
  }
  const rows = state.runs.flatMap((run) => run.steps.map((step, place) =>
    [run.name, step, ...names.map((name) => run.columns[name]?.[place] ?? null)]));
  return download("metrics.csv", csvText(["run", "step", ...names], rows), "text/csv");
}
