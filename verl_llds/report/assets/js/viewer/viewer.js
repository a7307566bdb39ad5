/** The page of trajectories: list and detail, kept in step with the address. */
let viewerReady = null;

async function openViewer(parts) {
  viewerReady ??= startViewer();
  await (await viewerReady)?.follow(parts);
}

async function startViewer() {
  const node = document.getElementById("viewer-body");
  if (!document.getElementById("data-index")) {
    node.append(element("p", { class: "note" }, "This run left no trajectories. Set trainer.rollout_data_dir and trainer.validation_data_dir for their text, and diagnostics.trajectories.every for their log-probabilities as well."));
    return null;
  }
  const index = await blockValue("data-index");
  const table = makeTable(index, index.runs);
  const summary = element("span", { role: "status", id: "summary" });
  const chunks = new Map();
  const viewer = {
    node,
    siblings: table.siblings,
    body: async (row) => {
      const number = Math.floor(row.place / index.chunk);
      if (!chunks.has(number)) chunks.set(number, blockValue(`data-chunk-${number}`));
      return (await chunks.get(number))[row.place % index.chunk];
    },
    go: (row, other, takeFocus = true) => {
      viewer.takeFocus = takeFocus;
      location.hash = ["#trajectories", ...(row ? [row.place] : []), ...(other ? [other.place] : [])].join("/");
    },
    follow: async ([place, other]) => {
      const row = table.rows[Number(place ?? NaN)];
      if (!row) return detail.close();
      await detail.open(row, table.rows[Number(other ?? NaN)], viewer.takeFocus);
      // Now, since a comparison narrows the list; another one may have been asked for meanwhile.
      if (detail.view.row === row) list.select(row);
    },
  };
  const detail = makeDetail(viewer);
  const list = makeList((row, takeFocus = false) => viewer.go(row, null, takeFocus));
  const refresh = () => {
    const found = sorted(filtered(table.rows, filters.filters), list.sorting());
    list.show(found);
    summary.textContent = `${found.length.toLocaleString("en")} of ${table.rows.length.toLocaleString("en")} trajectories`;
  };
  const filters = makeFilters(table.rows, refresh);
  list.whenSorted(refresh);
  node.append(
    element("section", { class: "list", "aria-label": "List of trajectories" }, filters.node,
      element("div", { class: "summary" }, summary, element("span", {}, index.note)), list.node),
    detail.node, element("div", { class: "tip", id: "tip", role: "tooltip", hidden: true }));
  refresh();
  new ResizeObserver(list.draw).observe(list.node);
  listenToKeys(viewer, detail, list, filters.search);
  return viewer;
}

function listenToKeys(viewer, detail, list, search) {
  document.addEventListener("keydown", (event) => {
    if (document.getElementById("viewer").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const { row, other } = detail.view;
    const isTyping = event.target.matches("input, select");
    if (event.key === "Escape") {
      if (other) viewer.go(row);
      else {
        if (row) viewer.go(null);
        list.focus();
      }
    } else if (isTyping) return;
    else if (event.key === "/") search.focus();
    else if (event.key === "c" && row) document.getElementById("compare")?.click();
    else if ((event.key === "j" || event.key === "k") && row) {
      const next = list.neighbour(row, event.key === "j" ? 1 : -1);
      if (next) viewer.go(next);
    } else return;
    event.preventDefault();
  });
}
