/** One plot with its table, its files, and a word where nothing was logged. */
function makePanel(panel, state) {
  const canvas = element("div", { class: "canvas waiting" });
  const table = element("div", { class: "table", hidden: true, tabindex: "0", role: "region", "aria-label": `${panel.title}, table` });
  const notFinite = element("p", { class: "not-finite", hidden: true });
  const tableButton = button("Table", () => {
    table.hidden = !table.hidden;
    canvas.hidden = !table.hidden;
    tableButton.setAttribute("aria-pressed", String(!table.hidden));
    draw();
  }, { class: "plain small", "aria-pressed": "false", "aria-label": `${panel.title}: table` });
  const actions = element("div", { class: "actions" }, tableButton, ...fileButtons(panel, state, canvas));
  const unit = element("span", { class: "unit" }, panel.unit);
  const node = element("article", { class: "panel", id: `panel-${panel.key}` },
    element("header", {}, element("h3", {}, panel.title, " ", unit), actions), canvas, table, notFinite);
  let isNear = false;

  async function draw() {
    if (!isNear || state.isHidden()) return;
    const runs = state.visibleRuns();
    const curves = panelCurves(panel, runs);
    actions.hidden = curves.length === 0;
    showNotFinite(notFinite, curves);
    if (!table.hidden) return fillTable(table, panel, state);
    if (curves.length === 0) return showMissing(canvas, panel, runs);
    const plotly = await state.plotly();
    if (!canvas.querySelector(".plot-container")) canvas.replaceChildren();
    canvas.classList.remove("waiting");
    const config = { displayModeBar: false, responsive: true, doubleClick: false };
    await plotly.react(canvas, traces(panel, runs, state.runs), plotLayout(panel, state), config);
    canvas.dataset.drawn = "true";
    describe(canvas, panel, curves);
    if (!canvas.dataset.listens) {
      canvas.dataset.listens = "true";
      canvas.on("plotly_relayout", (change) => {
        const [first, last] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
        if (first !== undefined) state.zoom([first, last]);
      });
      canvas.on("plotly_doubleclick", () => state.zoom(null));
    }
  }

  new IntersectionObserver((entries) => {
    if (!isNear && entries.some((entry) => entry.isIntersecting)) {
      isNear = true;
      draw();
    }
  }, { rootMargin: "300px" }).observe(node);
  return { node, draw, panel, see: () => { isNear = true; return draw(); } };
}

function fileButtons(panel, state, canvas) {
  const name = `${panel.key}`;
  const save = (label, give) => button(label, give, { class: "plain small", "aria-label": `${panel.title}: download ${label}` });
  return [
    save("CSV", () => {
      const { heads, rows } = panelTable(panel, state.visibleRuns());
      download(`${name}.csv`, csvText(heads, rows), "text/csv");
    }),
    save("JSON", () => {
      const curves = panelCurves(panel, state.visibleRuns());
      const data = curves.map(({ run, label, metric, points }) => ({ run: run.name, label, metric, points }));
      download(`${name}.json`, JSON.stringify({ title: panel.title, unit: panel.unit, curves: data }, null, 1), "application/json");
    }),
    save("PNG", async () => {
      if (canvas.dataset.drawn) (await state.plotly()).downloadImage(canvas, { format: "png", scale: 2, filename: name, width: 900, height: 420 });
    }),
  ];
}

function showMissing(canvas, panel) {
  canvas.classList.remove("waiting");
  delete canvas.dataset.listens;
  canvas.replaceChildren(element("div", { class: "missing" }, element("strong", {}, "Not logged"), panel.remedy));
}

function showNotFinite(node, curves) {
  const steps = curves.flatMap((curve) => curve.points.filter(([, value]) => typeof value === "string").map(([step]) => step));
  const distinct = [...new Set(steps)].sort((one, other) => one - other);
  node.hidden = distinct.length === 0;
  node.textContent = `Not finite at ${distinct.length === 1 ? "step" : "steps"} ${distinct.slice(0, 12).join(", ")}${distinct.length > 12 ? ", \u2026" : ""}`;
}

function fillTable(table, panel, state) {
  const { heads, rows } = panelTable(panel, state.visibleRuns(), state.range);
  table.replaceChildren(element("table", {},
    element("caption", {}, panel.unit),
    element("thead", {}, element("tr", {}, heads.map((head) => element("th", { scope: "col" }, visible(head))))),
    element("tbody", {}, rows.map(([step, ...values]) => element("tr", {},
      element("th", { scope: "row" }, String(step)), values.map((value) => element("td", {}, shown(value, 5))))))));
}

/** Says what the drawing shows to those who do not see it. */
function describe(canvas, panel, curves) {
  const parts = curves.slice(0, 8).map(({ run, label, points }) => {
    const [[first, before], [last, after]] = [points[0], points.at(-1)];
    return `${run.name}, ${label}: ${shown(before)} at step ${first}, ${shown(after)} at step ${last}`;
  });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${panel.title}. ${parts.join("; ")}. The table has every value.`);
}
