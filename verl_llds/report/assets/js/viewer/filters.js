/** The controls above the list. */
function makeFilters(rows, onchange) {
  const filters = { run: "", split: "", status: "", source: "", searches: "", outcome: "", steps: [null, null], rewards: [null, null], mixed: false, tokens: false, text: "" };
  const set = (name) => (value) => { filters[name] = value; onchange(); };
  const select = (label, name, options) => field(label, choice([["", "all"], ...options], set(name)));
  const distinct = (name) => [...new Set(rows.map((row) => row[name]))].filter((value) => value !== null)
    .sort((one, other) => (typeof one === "number" ? one - other : String(one).localeCompare(other)))
    .map((value) => [String(value), visible(String(value))]);
  const optional = (label, name) => (distinct(name).length > 1 ? [select(label, name, distinct(name))] : []);
  const search = element("input", { type: "search", placeholder: "words of the question", oninput: () => set("text")(search.value) });
  const node = element("div", { class: "filters", role: "search", "aria-label": "Filter trajectories" },
    field("Question", search, "wide"),
    select("Outcome", "outcome", [["right", "right"], ["wrong", "wrong"]]),
    optional("Run", "run"), optional("From", "split"), optional("Status", "status"), optional("Data set", "source"), optional("Searches", "searches"),
    rangeField("Step", 1, (range) => set("steps")(range)), rangeField("Reward", "any", (range) => set("rewards")(range)),
    check("groups with right and wrong", (on) => set("mixed")(on)),
    rows.some((row) => row.tokens) && rows.some((row) => !row.tokens) ? check("with log-probabilities", (on) => set("tokens")(on)) : null);
  return { node, filters, search };
}

function rangeField(label, step, onchange) {
  const bound = (end) => element("input", { type: "number", step, "aria-label": `${label}, ${end}`, placeholder: end === "least" ? "from" : "to", oninput: read });
  const ends = [bound("least"), bound("most")];
  function read() {
    onchange(ends.map((end) => (end.value === "" ? null : Number(end.value))));
  }
  return element("div", { class: "field" }, element("span", { class: "quiet" }, label), element("div", { class: "pair" }, ends));
}

function check(label, onchange) {
  const box = element("input", { type: "checkbox", onchange: () => onchange(box.checked) });
  return element("label", { class: "check" }, box, label);
}
