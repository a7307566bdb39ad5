/** Light and dark: the system's choice until the reader makes one. */
const THEMES = [["", "Theme: system"], ["light", "Theme: light"], ["dark", "Theme: dark"]];

function startTheme(onchange) {
  const toggle = document.getElementById("theme");
  let place = 0;
  const apply = () => {
    document.documentElement.dataset.theme = THEMES[place][0];
    toggle.textContent = THEMES[place][1];
    onchange();
  };
  toggle.addEventListener("click", () => {
    place = (place + 1) % THEMES.length;
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onchange);
  apply();
}

/** The present value of a colour variable, as a plot needs it. */
function colour(name) {
  const probe = element("span", { hidden: true });
  document.body.append(probe);
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
