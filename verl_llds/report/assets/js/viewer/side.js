/** One trajectory with its facts. */
function makeSide(row, body, view, shared, title) {
  const fact = (name, value) => (value === null || value === undefined || value === "" ? null : element("span", {}, `${name} `, element("b", {}, visible(String(value)))));
  const outcome = element("span", { class: row.correct ? "right" : "wrong" }, `${row.correct ? "\u2713 right" : "\u2717 wrong"}, reward ${shown(row.reward, 3)}`);
  return element("article", { class: "side", "aria-label": title },
    element("h3", {}, title, outcome),
    element("p", { class: "facts" },
      fact("answer", body.answer ?? "none"), fact("status", row.status.replaceAll("_", " ")), fact("searches", row.searches),
      fact("advantage", body.advantage === null ? null : signed(body.advantage)),
      fact("LLDS", body.preserved === null ? null : body.preserved ? "protects it" : "leaves it"),
      fact("name", body.key), fact("error", body.error)),
    makeTurns(body, view, shared),
    element("details", { class: "prompt" }, element("summary", {}, "Prompt"), fillLong(element("div", { class: "policy" }), body.prompt)));
}

/** How many characters two responses have in common from their start. */
function commonLength(one, other) {
  const text = (body) => body.turns.map((turn) => (turn.tokens ? turn.tokens.texts.join("") : turn.text ?? "") + (turn.observation ?? "")).join("");
  const [left, right] = [text(one), text(other)];
  const most = Math.min(left.length, right.length);
  let length = 0;
  while (length < most && left[length] === right[length]) length++;
  return beginning(left.length > right.length ? left : right, length).length;
}
