/** Reads the compressed blocks of the page: base64 of gzip. */
async function blockText(id) {
  const encoded = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function blockValue(id) {
  return JSON.parse(await blockText(id));
}

/** Resolves once the browser has painted and is idle. */
function afterPaint() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
}
