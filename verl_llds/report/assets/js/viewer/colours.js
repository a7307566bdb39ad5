/** How a token is coloured: by its displacement, its likelihood, or what it pays. */
const DELTA_STEPS = [0.02, 0.1, 0.3, 1];
const LOG_PROB_STEPS = [0.1, 0.7, 2, 5];
const PENALTY_STEPS = [1e-4, 0.1, 0.3, 1];

const COLOURINGS = {
  delta: { label: "change \u0394", of: (token) => (token.delta === null ? "" : level(Math.abs(token.delta), DELTA_STEPS, token.delta > 0 ? "fell" : "rose")) },
  log_prob: { label: "log-probability", of: (token) => (token.old === null ? "" : level(-token.old, LOG_PROB_STEPS, "fell")) },
  penalty: { label: "penalty", of: (token) => (token.penalty === null ? "" : level(token.penalty, PENALTY_STEPS, "fell")) },
  none: { label: "nothing", of: () => "" },
};

function level(size, steps, kind) {
  const passed = steps.filter((step) => size >= step).length;
  return passed ? `${kind}-${passed}` : "";
}

function makeScale(name) {
  const tint = (kind, label) => element("span", { class: `token ${kind}` }, label);
  const rising = (steps, sign, kind) => steps.map((step, place) => tint(`${kind}-${place + 1}`, `${sign}${shown(step)}`));
  const parts = {
    delta: [element("span", { class: "lead" }, "\u0394 = old \u2212 new, nats:"), ...rising(DELTA_STEPS, "\u2212", "rose").reverse(), tint("", "rose | fell"), ...rising(DELTA_STEPS, "+", "fell")],
    log_prob: [element("span", { class: "lead" }, "log-probability below:"), ...rising(LOG_PROB_STEPS, "\u2212", "fell")],
    penalty: [element("span", { class: "lead" }, "penalty from, nats:"), ...rising(PENALTY_STEPS, "", "fell")],
    none: [],
  }[name];
  return element("div", { class: "scale" }, parts, element("span", { class: "token open" }, "gate open"), element("span", { class: "token answer" }, "answer"));
}
