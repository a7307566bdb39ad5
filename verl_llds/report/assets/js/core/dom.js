/** Builds DOM. Text goes in as text, never as markup: nothing here or elsewhere in the page parses HTML. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

/** A labelled control. */
function field(label, control, extra = "") {
  control.id ||= `control-${label.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return element("div", { class: `field ${extra}` }, element("label", { for: control.id }, label), control);
}

function button(label, onclick, attributes = {}) {
  return element("button", { type: "button", class: "plain", onclick, ...attributes }, label);
}

/** A select over [value, label] pairs. */
function choice(options, onchange, attributes = {}) {
  const made = element("select", { onchange: () => onchange(made.value), ...attributes });
  made.append(...options.map(([value, label]) => element("option", { value }, label)));
  return made;
}
