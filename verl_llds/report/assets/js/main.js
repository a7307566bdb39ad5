/** Starts the page: what is in sight first, the plots once it is painted. */
async function start() {
  const ready = startReport();
  let report = null;
  startTheme(() => report?.redraw());
  window.addEventListener("hashchange", () => {
    hideTipIfThere();
    showPage();
    report?.redraw();
  });
  showPage();
  report = await ready;
  document.documentElement.dataset.ready = "true";
}

function hideTipIfThere() {
  if (document.getElementById("tip")) hideTip();
}

document.addEventListener("DOMContentLoaded", start);
