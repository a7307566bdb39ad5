/** A list that builds only the rows in sight. */
const ROW_HEIGHT = 34;
const SPARE_ROWS = 8;
const COLUMNS = [["step", "Step"], ["reward", "Reward"], ["question", "Question"], ["searches", "Searches"], ["shared", "Shared"], ["status", "Status"], ["source", "Data set"]];

function makeList(onopen) {
  let rows = [], active = 0, sort = { column: "step", descending: false };
  const space = element("div", { class: "space", role: "rowgroup" });
  const heads = element("div", { class: "row heads", role: "row", "aria-rowindex": "1" }, COLUMNS.map(([name, label]) =>
    element("div", { role: "columnheader", "data-column": name, "aria-sort": "none" },
      element("button", { type: "button", onclick: () => sortBy(name), title: name === "shared" ? "Characters that the response shares, from its start, with a sibling of the other outcome" : undefined }, label))));
  const grid = element("div", { class: "rows", role: "grid", tabindex: "0", "aria-label": "Trajectories", onscroll: () => requestAnimationFrame(draw), onkeydown: key },
    element("div", { class: "top", role: "rowgroup" }, heads), space);
  // The heads stay in sight and cover one row of it.
  const room = () => grid.clientHeight - ROW_HEIGHT;
  let onsort = () => {};

  function sortBy(column) {
    sort = { column, descending: sort.column === column ? !sort.descending : ["reward", "shared", "searches"].includes(column) };
    onsort();
  }

  function show(next) {
    const current = rows[active];
    rows = next;
    active = Math.max(0, current ? rows.indexOf(current) : 0);
    space.style.height = `${rows.length * ROW_HEIGHT}px`;
    grid.setAttribute("aria-rowcount", String(rows.length + 1));
    for (const head of heads.children) {
      head.setAttribute("aria-sort", head.dataset.column !== sort.column ? "none" : sort.descending ? "descending" : "ascending");
    }
    if (active === 0) grid.scrollTop = 0;
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(grid.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const last = Math.min(rows.length, Math.ceil((grid.scrollTop + room()) / ROW_HEIGHT) + SPARE_ROWS);
    const made = [];
    for (let place = first; place < last; place++) made.push(makeRow(place));
    space.replaceChildren(...made);
    if (rows.length) grid.setAttribute("aria-activedescendant", `row-${active}`);
    else grid.removeAttribute("aria-activedescendant");
  }

  function makeRow(place) {
    const row = rows[place];
    const cells = [
      [String(row.step), "number"],
      [`${row.correct ? "\u2713" : "\u2717"} ${shown(row.reward, 3)}`, `number ${row.correct ? "right" : "wrong"}`],
      [row.question], [shown(row.searches), "number"], [shown(row.shared), "number"],
      [row.status.replaceAll("_", " ")], [row.source],
    ];
    const node = element("div", {
      class: `row ${place === active ? "active" : ""}`, role: "row", id: `row-${place}`, "aria-rowindex": place + 2,
      "aria-selected": String(place === active), onclick: () => { move(place); onopen(row); },
    }, cells.map(([text, kind]) => element("span", { role: "gridcell", class: kind }, visible(text))));
    node.style.top = `${place * ROW_HEIGHT}px`;
    return node;
  }

  function move(place) {
    active = Math.min(Math.max(place, 0), rows.length - 1);
    const top = active * ROW_HEIGHT;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + ROW_HEIGHT > grid.scrollTop + room()) grid.scrollTop = top + ROW_HEIGHT - room();
    draw();
  }

  function key(event) {
    // A head's button has keys of its own.
    if (event.target !== grid) return;
    const page = Math.max(1, Math.floor(room() / ROW_HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -rows.length, End: rows.length };
    if (event.key in steps) move(active + steps[event.key]);
    else if (event.key === "Enter" && rows[active]) onopen(rows[active], true);
    else return;
    event.preventDefault();
  }

  return {
    node: grid, show, draw,
    sorting: () => sort,
    whenSorted: (act) => { onsort = act; },
    focus: () => grid.focus(),
    select: (row) => (rows.includes(row) ? move(rows.indexOf(row)) : draw()),
    neighbour: (row, offset) => rows[rows.indexOf(row) + offset],
  };
}
