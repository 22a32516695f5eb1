"use strict";
// On a site that `vbench report --watch` or a server writes: the page is read again once its data have changed.
(() => {
  const INTERVAL_MS = 2000;
  const version = document.currentScript.dataset.version;
  const source = document.currentScript.dataset.source;
  let number = 0;

  function look() {
    const script = element("script", { src: `${source}?${++number}` });
    script.addEventListener("load", () => {
      script.remove();
      const now = vbench_data.version?.version;
      if (now && now !== version) location.reload();  // the state of the board is in the address, which stays
    });
    script.addEventListener("error", () => script.remove());
    document.head.append(script);
  }

  setInterval(() => { if (!document.hidden) look(); }, INTERVAL_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
})();
