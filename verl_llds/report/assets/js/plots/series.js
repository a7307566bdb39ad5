/** Curves of a panel, as the runs logged them. */
const SERIES_COLOURS = 8;
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];

/** Returns {run, runPlace, label, curvePlace, points: [[step, value]]} for each curve that a run has. */
function panelCurves(panel, runs) {
  return runs.flatMap((run) => curvesOf(panel, runs).flatMap((curve, curvePlace) => {
    const metric = curve.metrics.find((name) => run.columns[name]);
    if (!metric) return [];
    const values = run.columns[metric];
    const points = run.steps.map((step, place) => [step, values[place]]).filter(([, value]) => value !== null);
    return points.length ? [{ run, label: curve.label, curvePlace, metric, points }] : [];
  }));
}

/** The panel's own curves, or one for each metric with its prefix. */
function curvesOf(panel, runs) {
  if (!panel.prefix) return panel.curves;
  const names = new Set(runs.flatMap((run) => Object.keys(run.columns).filter((name) => name.startsWith(panel.prefix))));
  const rests = [...names].sort().map((name) => name.slice(panel.prefix.length));
  return rests
    .filter((rest) => !panel.omit.includes(rest))
    .filter((rest) => runs.some((run) => (run.columns[panel.prefix + rest] ?? []).some((value) => value)))
    .map((rest) => ({ label: rest.replaceAll("_", " "), metrics: [panel.prefix + rest] }));
}

/** The panel's numbers by step: what the table shows and the files hold. */
function panelTable(panel, runs, within) {
  const curves = panelCurves(panel, runs);
  const heads = ["step", ...curves.map((curve) => (runs.length > 1 ? `${curve.run.name}: ${curve.label}` : curve.label))];
  const columns = curves.map((curve) => new Map(curve.points));
  const steps = [...new Set(curves.flatMap((curve) => curve.points.map(([step]) => step)))]
    .filter((step) => !within || (step >= within[0] && step <= within[1]))
    .sort((one, other) => one - other);
  return { heads, rows: steps.map((step) => [step, ...columns.map((column) => column.get(step) ?? null)]) };
}
