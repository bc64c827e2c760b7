// Follows a job on its page: fetches the page again, passively, and takes over what it says.
(() => {
  "use strict";

  const PAUSE = 2000;
  const PATIENCE = 5000;
  const PARTS = ["trail-job-state", "trail-job-rest"];

  async function look() {
    const headers = { "X-Phi-Passive": "1" };
    const options = { cache: "no-store", headers, redirect: "error", signal: AbortSignal.timeout(PATIENCE) };
    let isOpen = true;
    try {
      const answer = await fetch(location.href, options);
      const page = new DOMParser().parseFromString(answer.ok ? await answer.text() : "", "text/html");
      const job = page.getElementById("trail-job");
      if (!job) {
        return;
      }
      isOpen = "open" in job.dataset;
      for (const part of PARTS) {
        const [here, there] = [document.getElementById(part), page.getElementById(part)];
        if (here.innerHTML !== there.innerHTML) {
          here.className = there.className;
          here.replaceChildren(...there.childNodes);
        }
      }
    } catch {
      // The next look may get an answer.
    }
    if (isOpen) {
      setTimeout(look, PAUSE);
    }
  }

  setTimeout(look, PAUSE);
})();
