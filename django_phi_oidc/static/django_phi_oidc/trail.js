// Updates the page of a job: fetches it periodically, without extending the session, and replaces its parts.
(() => {
  "use strict";

  const POLL_INTERVAL = 2000;
  const REQUEST_TIMEOUT = 5000;
  const PARTS = ["trail-job-state", "trail-job-rest"];

  async function update() {
    const headers = { "X-Phi-Passive": "1" };
    const options = { cache: "no-store", headers, redirect: "error", signal: AbortSignal.timeout(REQUEST_TIMEOUT) };
    let isOpen = true;
    try {
      const response = await fetch(location.href, options);
      const page = new DOMParser().parseFromString(response.ok ? await response.text() : "", "text/html");
      const job = page.getElementById("trail-job");
      if (!job) {
        return;
      }
      isOpen = "open" in job.dataset;
      for (const part of PARTS) {
        const [current, updated] = [document.getElementById(part), page.getElementById(part)];
        if (current.innerHTML !== updated.innerHTML) {
          current.className = updated.className;
          current.replaceChildren(...updated.childNodes);
        }
      }
    } catch {
      // The next request may succeed.
    }
    if (isOpen) {
      setTimeout(update, POLL_INTERVAL);
    }
  }

  setTimeout(update, POLL_INTERVAL);
})();
