/** The policy's text of a turn, token by token, with what is known of each on hover and by arrow keys. */
function turnTokens(turn) {
  const { texts, old, new: now, gate, penalty, answer } = turn.tokens;
  return texts.map((text, place) => {
    const [before, after] = [old[place], now?.[place] ?? null];
    return {
      text, old: before, new: after, answer: answer[place],
      delta: before === null || after === null || typeof before === "string" || typeof after === "string" ? null : before - after,
      gate: gate ? gate[place] : null,
      penalty: penalty ? penalty[place] : null,
    };
  });
}

function tokenText(tokens, colouring, shared, label) {
  let place = 0;
  const spans = [];
  const parts = tokens.map((token) => {
    const start = place;
    place += token.text.length;
    const isCommon = shared !== null && place <= shared && token.text !== "";
    const isParting = shared !== null && start <= shared && place > shared;
    const span = element("span", { class: ["token", COLOURINGS[colouring].of(token), token.gate && "open", token.answer && "answer", isCommon && "common"].filter(Boolean).join(" ") }, visible(token.text));
    spans.push([span, token]);
    return isParting ? [parting(), span] : span;
  });
  const node = element("div", { class: "policy", tabindex: "0", role: "group", "aria-label": `${label}: left and right arrow keys go from token to token` }, parts);
  listen(node, spans);
  return node;
}

function parting() {
  return element("span", { class: "parting" }, "they part here");
}

function listen(node, spans) {
  const known = new Map(spans);
  let current = -1;
  const enter = (place) => {
    spans[current]?.[0].classList.remove("current");
    current = Math.min(Math.max(place, 0), spans.length - 1);
    const [span, token] = spans[current];
    span.classList.add("current");
    span.scrollIntoView({ block: "nearest" });
    showTip(span, token);
  };
  const leave = () => {
    spans[current]?.[0].classList.remove("current");
    hideTip();
  };
  node.addEventListener("pointerover", (event) => {
    const span = event.target.closest(".token");
    if (known.has(span)) showTip(span, known.get(span));
  });
  node.addEventListener("pointerleave", hideTip);
  node.addEventListener("focus", () => node.matches(":focus-visible") && enter(Math.max(current, 0)));
  node.addEventListener("blur", leave);
  node.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -spans.length, End: spans.length };
    if (!(event.key in steps) || !spans.length) return;
    event.preventDefault();
    enter(current + steps[event.key]);
  });
}

function showTip(span, token) {
  const tip = document.getElementById("tip");
  const percent = (logProb) => (typeof logProb === "number" ? `${shown(100 * Math.exp(logProb), 3)} %` : "");
  const facts = [
    ["\u0394", token.delta === null ? "not measured" : `${signed(token.delta)} (${Math.abs(token.delta) < 5e-4 ? "unchanged" : token.delta > 0 ? "fell" : "rose"})`],
    ["log-prob before", `${shown(token.old)} \u00b7 ${percent(token.old)}`],
    ["log-prob after", token.new === null ? "not measured" : `${shown(token.new)} \u00b7 ${percent(token.new)}`],
    ["gate", token.gate === null ? "not measured" : token.gate ? "open" : "closed"],
    ["penalty", token.penalty === null ? "not measured" : shown(token.penalty)],
    ...(token.answer ? [["part of", "the answer"]] : []),
  ];
  tip.replaceChildren(element("code", {}, visible(token.text).replaceAll("\n", "\u21b5") || "(no text of its own)"),
    element("dl", {}, facts.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
  tip.hidden = false;
  const [box, size] = [span.getBoundingClientRect(), tip.getBoundingClientRect()];
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - size.width - 8))}px`;
  tip.style.top = `${box.bottom + size.height + 8 < innerHeight ? box.bottom + 6 : box.top - size.height - 6}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
