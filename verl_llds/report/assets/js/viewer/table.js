/** The trajectories' index as rows, filtered and sorted. */
function makeTable(index, runs) {
  const { columns, names } = index;
  const size = columns.step.length;
  const mixed = mixedGroups(columns);
  const row = (place) => ({
    place,
    run: runs[columns.run[place]],
    split: columns.split[place],
    step: columns.step[place],
    reward: Number(columns.reward[place]),
    correct: columns.correct[place],
    status: names.status[columns.status[place]] || "not recorded",
    source: names.source[columns.source[place]] || "not recorded",
    searches: columns.num_searches[place],
    question: names.question[columns.question[place]],
    group: columns.group[place],
    shared: columns.shared[place],
    sibling: columns.sibling[place],
    tokens: columns.tokens[place],
    mixed: mixed.has(columns.group[place]),
  });
  const rows = Array.from({ length: size }, (_, place) => row(place));
  const siblings = new Map();
  for (const one of rows) siblings.set(one.group, [...(siblings.get(one.group) ?? []), one]);
  return { rows, siblings: (one) => siblings.get(one.group) };
}

function mixedGroups(columns) {
  const seen = new Map();
  columns.group.forEach((group, place) => seen.set(group, (seen.get(group) ?? 0) | (columns.correct[place] ? 1 : 2)));
  return new Set([...seen].filter(([, kinds]) => kinds === 3).map(([group]) => group));
}

/** Keeps the rows that pass every filter that is set. */
function filtered(rows, filters) {
  const words = filters.text.toLowerCase().split(/\s+/).filter(Boolean);
  const within = (value, [least, most]) => (least === null || value >= least) && (most === null || value <= most);
  return rows.filter((row) =>
    ["run", "split", "status", "source"].every((name) => filters[name] === "" || String(row[name]) === filters[name])
    && (filters.searches === "" || String(row.searches) === filters.searches)
    && (filters.outcome === "" || row.correct === (filters.outcome === "right"))
    && within(row.step, filters.steps) && within(row.reward, filters.rewards)
    && (!filters.mixed || row.mixed) && (!filters.tokens || row.tokens)
    && words.every((word) => row.question.toLowerCase().includes(word)));
}

/** Sorts by a column; rows without a value come last either way. */
function sorted(rows, { column, descending }) {
  const sign = descending ? -1 : 1;
  return [...rows].sort((one, other) => {
    const [left, right] = [one[column], other[column]];
    if (left === right) return one.place - other.place;
    if (left === null) return 1;
    if (right === null) return -1;
    return sign * (typeof left === "string" ? left.localeCompare(right) : left - right);
  });
}
