/** Which page is shown: the address says it, so that links and the back button work. */
function showPage() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  const isViewer = name === "trajectories";
  document.getElementById("viewer").hidden = !isViewer;
  document.getElementById("report").hidden = isViewer;
  document.body.dataset.page = isViewer ? "trajectories" : "report";
  for (const tab of document.querySelectorAll(".tab")) {
    const isCurrent = tab.getAttribute("href") === (isViewer ? "#trajectories" : "#report");
    if (isCurrent) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  if (isViewer) openViewer(rest);
}
