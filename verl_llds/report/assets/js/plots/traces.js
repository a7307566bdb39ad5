/** A panel's curves as plotly draws them. */
function traces(panel, runs, allRuns) {
  const isCompared = runs.length > 1;
  const curves = panelCurves(panel, runs);
  const isLong = curves.some((curve) => curve.points.length > 60);
  return curves.map((curve) => {
    const number = isCompared ? allRuns.indexOf(curve.run) : curve.curvePlace;
    const ink = colour(`series-${(number % SERIES_COLOURS) + 1}`);
    const round = isCompared ? curve.curvePlace : Math.floor(curve.curvePlace / SERIES_COLOURS);
    const trace = {
      x: curve.points.map(([step]) => step),
      y: curve.points.map(([, value]) => (Number.isFinite(Number(value)) ? Number(value) : null)),
      name: isCompared ? `${plotText(curve.run.name)}: ${plotText(curve.label)}` : plotText(curve.label),
      hovertemplate: "%{y:.5~g}",
    };
    if (!isCompared && panel.shape === "bars") return { ...trace, type: "bar", marker: { color: ink, line: { width: 0 } } };
    const isStacked = !isCompared && panel.shape === "areas";
    return {
      ...trace,
      type: "scatter",
      mode: (isLong && curve.points.length > 1) || isStacked ? "lines" : "lines+markers",
      marker: { size: 4, color: ink },
      line: { color: ink, width: isStacked ? 0.5 : 1.8, dash: DASHES[round % DASHES.length] },
      ...(isStacked ? { stackgroup: "all", fillcolor: ink } : {}),
    };
  });
}

/** plotly reads a little markup in names: take its meaning away. */
function plotText(text) {
  return visible(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Steps in a row of one phase, shaded behind the curves and named where there is room. */
function phaseShades(spans, range) {
  const width = range[1] - range[0] || 1;
  const alarming = spans.filter((span) => span.number > 0);
  const shapes = alarming.map((span) => ({
    type: "rect", xref: "x", yref: "paper", x0: span.first - 0.5, x1: span.last + 0.5, y0: 0, y1: 1,
    layer: "below", line: { width: 0 }, fillcolor: colour(`phase-${span.number}`),
  }));
  const annotations = alarming.filter((span) => (span.last - span.first) / width > 0.14).map((span) => ({
    xref: "x", yref: "paper", x: span.first - 0.5, y: 1, xanchor: "left", yanchor: "top", showarrow: false,
    text: span.phase, font: { size: 10, color: colour("quiet") },
  }));
  return { shapes, annotations };
}

function plotLayout(panel, state) {
  const ink = colour("ink"), quiet = colour("quiet"), line = colour("line");
  const axis = { gridcolor: line, zeroline: false, linecolor: line, tickfont: { color: quiet, size: 11 }, automargin: true };
  const range = state.range ?? state.steps;
  return {
    ...phaseShades(state.shaded?.spans ?? [], range),
    height: 270,
    margin: { l: 8, r: 8, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: ink, size: 12 },
    xaxis: { ...axis, title: { text: "step", font: { size: 11, color: quiet }, standoff: 4 }, range: padded(range), tickformat: "d" },
    yaxis: { ...axis, type: panel.shape === "log_lines" ? "log" : "linear", exponentformat: "power", nticks: 6 },
    showlegend: true, legend: { orientation: "h", x: 0, y: -0.22, yanchor: "top", font: { size: 11 } },
    barmode: "stack", bargap: 0.15, hovermode: "x unified", dragmode: "zoom",
    hoverlabel: { bgcolor: colour("card"), bordercolor: line, font: { color: ink } },
  };
}

function padded([first, last]) {
  const room = Math.max(0.5, (last - first) * 0.015);
  return [first - room, last + room];
}
