// The receipt's page. It reports that the receipt was viewed on the person's
// first own input, never by loading, and scrolling counts by what causes it:
// scroll events also come from scripts and from the browser itself.
(() => {
  "use strict";
  document.documentElement.classList.add("js");
  const inputs = ["keydown", "pointerdown", "touchstart", "wheel"];
  let reported = false;

  async function report() {
    if (reported) return;
    reported = true;
    try {
      const response = await fetch(location.pathname.replace(/\/+$/, "") + "/viewed", {
        method: "POST",
        headers: { "X-Paythread-Nonce": document.body.dataset.nonce },
        keepalive: true,
      });
      if (response.status >= 500) reported = false;
    } catch {
      reported = false; // the next input tries again
    }
  }

  const onInput = (event) => { if (event.isTrusted) report(); };
  inputs.forEach((name) => addEventListener(name, onInput, { passive: true, capture: true }));
  document.getElementById("print").addEventListener("click", (event) => {
    onInput(event);
    window.print();
  });
})();
