/** The trajectory that is open, alone or beside a sibling. */
function makeDetail(viewer) {
  const node = element("section", { class: "detail", "aria-label": "Trajectory", tabindex: "-1" });
  // The latest request wins, whichever chunk arrives last.
  const view = { colouring: "delta", row: null, other: null, turn: 0 };

  async function open(row, other, takeFocus) {
    const turn = ++view.turn;
    Object.assign(view, { row, other });
    const [body, otherBody] = await Promise.all([viewer.body(row), other ? viewer.body(other) : null]);
    if (turn !== view.turn) return;
    hideTip();
    viewer.node.classList.toggle("comparing", Boolean(other));
    const isMeasured = [body, otherBody].some((one) => one?.turns.some((turn) => turn.tokens?.new));
    if (!isMeasured && view.colouring === "delta") view.colouring = "log_prob";
    else if (isMeasured && view.isDefault !== false) view.colouring = "delta";
    const shared = otherBody ? commonLength(body, otherBody) : null;
    const sides = [makeSide(row, body, view, shared, other ? "This one" : "Trajectory"), otherBody && makeSide(other, otherBody, view, shared, "Its sibling")];
    const question = element("h2", { class: "question", tabindex: "-1" }, visible(row.question) || "(no question)");
    node.replaceChildren(question, facts(row, body), toolbar(row, other, body), ...(shared === null ? [] : [sharedNote(shared)]), element("div", { class: "sides" }, sides.filter(Boolean)));
    node.scrollTop = 0;
    if (takeFocus) question.focus();
  }

  function facts(row, body) {
    const fact = (name, value) => element("span", {}, `${name} `, element("b", {}, visible(value)));
    return element("p", { class: "facts" }, fact("right answers", body.gold_answers.join(" | ") || "not recorded"), fact(row.split, `step ${row.step}`), fact("data set", row.source), fact("run", row.run));
  }

  function toolbar(row, other, body) {
    const siblings = viewer.siblings(row);
    const best = siblings.find((one) => one.place === row.sibling);
    const hasTokens = body.turns.some((turn) => turn.tokens);
    const colouring = choice(Object.entries(COLOURINGS).map(([name, { label }]) => [name, label]), (name) => {
      Object.assign(view, { colouring: name, isDefault: false });
      open(view.row, view.other);
    }, { "aria-label": "Tokens coloured by" });
    colouring.value = view.colouring;
    return element("div", { class: "toolbar" },
      other ? button("Close comparison", () => viewer.go(row)) : best && button("Compare with the most similar sibling of the other outcome", () => viewer.go(row, best), { id: "compare" }),
      siblings.length > 1 ? element("div", { class: "siblings", role: "group", "aria-label": "Siblings" }, siblings.map((sibling, place) => siblingButton(sibling, place, row, other))) : null,
      hasTokens ? ["Colour", colouring, makeScale(view.colouring)] : element("span", { class: "quiet" }, "No log-probabilities were recorded: set diagnostics.trajectories.every to colour the tokens."));
  }

  function siblingButton(sibling, place, row, other) {
    const label = `${sibling.correct ? "\u2713" : "\u2717"} ${place + 1}`;
    const say = `Sibling ${place + 1}, ${sibling.correct ? "right" : "wrong"}${sibling === row ? ", open" : ""}`;
    return button(label, () => viewer.go(sibling), { class: `plain small ${sibling.correct ? "right" : "wrong"}`, "aria-label": say, "aria-pressed": String(sibling === row || sibling === other) });
  }

  function sharedNote(shared) {
    return element("p", { class: "facts", role: "status" }, element("span", {}, "Both begin with the same ", element("b", {}, shared.toLocaleString("en")), " characters, ", element("span", { class: "common" }, "underlined"), "."));
  }

  function close() {
    view.turn++;
    view.row = view.other = null;
    hideTip();
    viewer.node.classList.remove("comparing");
    node.replaceChildren(element("div", { class: "empty" },
      element("p", {}, "Open a trajectory to see its turns, its tokens and its siblings."),
      element("dl", {}, [["\u2191 \u2193", "move in the list"], ["Enter", "open"], ["c", "compare with a sibling of the other outcome"], ["j k", "next, previous"], ["Esc", "back"], ["/", "search"]]
        .map(([keys, does]) => [element("dt", {}, keys.split(" ").map((one) => [element("kbd", {}, one), " "])), element("dd", {}, does)]))));
  }

  return { node, open, close, view };
}
