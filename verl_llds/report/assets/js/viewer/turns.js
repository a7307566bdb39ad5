/** A trajectory turn by turn: what the policy wrote, and what came back. */
const LONG_TEXT = 20000;

function makeTurns(body, view, shared) {
  let start = 0;
  return body.turns.map((turn, place) => {
    const text = turn.tokens ? turn.tokens.texts.join("") : turn.text ?? "";
    const within = shared === null ? null : shared - start;
    start += text.length + (turn.observation ?? "").length;
    const label = `Turn ${place + 1}`;
    return element("section", { class: "turn" },
      element("header", {}, element("h4", {}, label), turnFacts(turn)),
      turn.tokens ? tokenText(turnTokens(turn), view.colouring, within, label) : plainText(text, within),
      turn.observation ? observation(turn, within === null ? null : within - text.length) : null);
  });
}

function turnFacts(turn) {
  const facts = [];
  const add = (name, value) => facts.push(element("span", {}, `${name} `, element("b", {}, visible(String(value)))));
  if (turn.kind) facts.push(element("span", {}, element("b", {}, { call: turn.tool || "call", answer: "answer", invalid: "no valid action" }[turn.kind] ?? visible(turn.kind)), turn.content ? " \u201c" : "", turn.content ? element("b", {}, visible(beginning(turn.content, 200))) : "", turn.content ? "\u201d" : ""));
  if (turn.status && !["result", "answer", "invalid"].includes(turn.status)) add("status", turn.status.replaceAll("_", " "));
  if (!turn.tokens) return facts;
  const tokens = turnTokens(turn);
  const mean = (name) => {
    const values = tokens.map((token) => token[name]).filter((value) => typeof value === "number");
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  };
  const deltas = tokens.map((token) => token.delta).filter((value) => value !== null);
  add("tokens", tokens.length);
  add("log-prob per token", mean("new") === null ? shown(mean("old"), 3) : `${shown(mean("old"), 3)} \u2192 ${shown(mean("new"), 3)}`);
  if (deltas.length) {
    const sum = deltas.reduce((total, value) => total + value, 0);
    add("\u0394 of the action", `${signed(sum)} (${sum > 0 ? "fell" : "rose"})`);
    add("gate", tokens.some((token) => token.gate) ? "open" : "closed");
    add("penalty", shown(tokens.reduce((total, token) => total + (token.penalty ?? 0), 0), 3));
  }
  return facts;
}

/** Text without tokens, with the end of what it shares with its sibling marked. */
function plainText(text, shared) {
  const node = element("div", { class: "policy" });
  return shared === null ? fillLong(node, text) : fillMarked(node, text, shared);
}

function fillMarked(node, text, shared) {
  const common = text.slice(0, Math.max(0, shared)), rest = text.slice(Math.max(0, shared));
  if (common) node.append(fillLong(element("span", { class: "common" }), common));
  if (shared >= 0 && rest) node.append(parting());
  if (rest) node.append(fillLong(element("span"), rest));
  return node;
}

/** A text of a megabyte would stop the page: show its beginning, the rest on demand. */
function fillLong(node, text) {
  const first = beginning(text, LONG_TEXT);
  node.append(visible(first));
  if (first.length < text.length) {
    const show = () => more.replaceWith(visible(text.slice(first.length)));
    const more = element("span", {}, " ", button(`Show all ${text.length.toLocaleString("en")} characters`, show, { class: "plain small" }));
    node.append(more);
  }
  return node;
}

function observation(turn, shared) {
  const passages = passagesOf(turn.observation);
  const count = passages.length === 1 ? "1 passage" : `${passages.length} passages`;
  const facts = [passages.length ? count : null, turn.latency_s ? `${shown(turn.latency_s, 3)} s` : null, turn.attempts > 1 ? `${turn.attempts} attempts` : null, turn.is_truncated ? "cut to its budget" : null].filter(Boolean);
  const note = shared === null ? "" : shared >= turn.observation.length ? " \u00b7 the same in both" : shared > 0 ? " \u00b7 they part in it" : "";
  const node = element("details", { class: "observation" }, element("summary", {}, ["Observation", ...facts].join(" \u00b7 "), note));
  if (passages.length) node.append(...passages.map((passage, place) => makePassage(passage, turn.documents?.[place])));
  else node.append(fillLong(element("div", { class: "observed" }), turn.observation.trim()));
  if (!passages.length) node.open = turn.observation.length < 400;
  return node;
}

/** The passages of an observation; none if it is not made of numbered ones. */
function passagesOf(text) {
  const inner = text.replace(/^\s*(user\s*)?<(information|tool_response)>/, "").replace(/<\/(information|tool_response)>\s*(assistant\s*)?$/, "");
  const parts = inner.split(/(?=Doc \d+\(Title: )/).filter((part) => part.trim());
  return parts.length && parts.every((part) => /^\s*Doc \d+\(Title: /.test(part)) ? parts : [];
}

function makePassage(text, id) {
  const [, number, title, rest] = /^\s*Doc (\d+)\(Title: (.*?)\) ([\s\S]*)$/.exec(text) ?? [null, "", "", text];
  return element("details", { class: "passage" },
    element("summary", {}, visible(`${number}  ${title.replace(/^"|"$/g, "") || "passage"}`), id === undefined ? null : element("span", { class: "quiet" }, visible(`  id ${id}`))),
    fillLong(element("div", { class: "observed" }), rest.trim()));
}
