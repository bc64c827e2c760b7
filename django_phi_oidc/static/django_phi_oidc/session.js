// Watches the session of the page: warns before its time limit, and blanks the page at the limit.
// The data- attributes of its script tag, rendered by {% phi_oidc_session %}, contain all parameters.
(() => {
  "use strict";

  const page = document.currentScript.dataset;
  const root = document.documentElement;
  const WARNING = page.warning * 1000;
  const TICK = 1000;
  const SLEEP_THRESHOLD = 90 * 1000; // The timers of a hidden page run once a minute.
  const GRACE = 2000; // By then, the next page of another tab has announced itself.
  const REQUEST_TIMEOUT = 5000;

  const channel = new BroadcastChannel(`django_phi_oidc ${page.url}`);
  const began = Date.now() - performance.now();
  let idleEnds;
  let absoluteEnds;
  let ticked = now();
  let ticking;
  let recheckTimer; // Checks the session after a message of another tab.
  let dialog;
  let isChecking = false;
  let isConfirmed = false; // The server has confirmed that the limit is near.
  let isDismissed = false;
  let isBlank = false;
  let isLeaving = false;

  // The later of two clocks: one may stop while the machine sleeps, the other may be set back.
  function now() {
    return Math.max(Date.now(), began + performance.now());
  }

  function ends() {
    return Math.min(idleEnds, absoluteEnds);
  }

  function hide() {
    root.style.setProperty("display", "none", "important");
  }

  function show() {
    root.style.removeProperty("display");
  }

  function blank() {
    isBlank = true;
    root.replaceChildren(document.createElement("head"), document.createElement("body"));
    document.title = page.over;
  }

  function leave(url) {
    isLeaving = true;
    clearInterval(ticking);
    blank();
    location.replace(url);
  }

  // Applies the limits that the server returned, to this tab or to another one.
  function applyLimits({ idle, absolute }) {
    clearTimeout(recheckTimer);
    idleEnds = now() + idle * 1000;
    absoluteEnds = now() + absolute * 1000;
    show();
  }

  // Returns the session's state from the server; null if it has ended, undefined if the request failed.
  async function fetchState(method) {
    const options = { method, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(REQUEST_TIMEOUT) };
    if (method === "GET") {
      options.headers = { "X-Phi-Passive": "1" };
    } else {
      options.body = new URLSearchParams({ csrfmiddlewaretoken: page.token });
    }
    try {
      const response = await fetch(page.url, options);
      return response.status === 401 ? null : response.ok ? await response.json() : undefined;
    } catch {
      return undefined;
    }
  }

  // Returns whether the session is active. If it has ended, leaves the page.
  async function refresh(method) {
    const state = await fetchState(method);
    if (isLeaving) {
      return false;
    }
    if (state && state.session === page.session) {
      channel.postMessage(state);
      page.token = state.token;
      if (isBlank) {
        // By GET, even if a POST made this page. With its fragment, the browser would not send a request. With the
        // origin, because a path that begins with // would be the address of another host.
        leave(location.origin + location.pathname + location.search);
      } else {
        applyLimits(state);
      }
    } else if (state !== undefined || isBlank || now() >= ends()) {
      leave(page.expired);
    } else {
      show();
      return false;
    }
    return !isLeaving;
  }

  async function check() {
    if (!isChecking) {
      isChecking = true;
      await refresh("GET");
      isChecking = false;
    }
  }

  function tick() {
    if (isBlank) {
      return;
    }
    const hasSlept = now() - ticked > SLEEP_THRESHOLD;
    ticked = now();
    if (hasSlept || now() >= ends()) {
      hide();
      check();
    } else {
      warn();
    }
  }

  function warn() {
    const left = ends() - now();
    if (left > WARNING) {
      isConfirmed = isDismissed = false;
      dialog?.close();
    } else if (!isConfirmed) {
      // Another script of this page may have used the session in the meantime.
      isConfirmed = true;
      check();
    } else if (!isDismissed) {
      dialog ??= build();
      dialog.update(Math.ceil(left / 1000), idleEnds < absoluteEnds);
      if (!dialog.open) {
        dialog.showModal();
      }
    }
  }

  function build() {
    const dialogElement = document.createElement("dialog");
    const add = (name, attributes) => {
      const element = document.createElement(name);
      Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
      dialogElement.append(element);
      return element;
    };
    dialogElement.className = "phi-oidc-warning";
    dialogElement.setAttribute("role", "alertdialog");
    dialogElement.setAttribute("aria-labelledby", "phi-oidc-warning-title");
    dialogElement.setAttribute("aria-describedby", "phi-oidc-warning-text phi-oidc-warning-time");
    const title = add("h2", { id: "phi-oidc-warning-title" });
    const text = add("p", { id: "phi-oidc-warning-text" });
    const time = add("p", { id: "phi-oidc-warning-time", role: "timer" });
    const fault = add("p", { role: "alert" });
    const button = add("button", { type: "button", autofocus: "" });
    let canStay;

    dialogElement.update = (seconds, isIdle) => {
      canStay = isIdle;
      title.textContent = isIdle ? page.title : page.lastTitle;
      text.textContent = isIdle ? page.idleText : page.lastText;
      button.textContent = isIdle ? page.stay : page.close;
      time.textContent = `${page.left} ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    };
    button.addEventListener("click", async () => {
      fault.textContent = "";
      if (!canStay) {
        isDismissed = true;
        dialogElement.close();
      } else if (await refresh("POST")) {
        warn();
      } else if (!isLeaving) {
        fault.textContent = page.failed;
      }
    });
    // Pressing Escape shows that the user is present.
    dialogElement.addEventListener("cancel", (event) => {
      event.preventDefault();
      button.click();
    });
    document.body.append(dialogElement);
    return dialogElement;
  }

  channel.addEventListener("message", ({ data }) => {
    if (isLeaving) {
      return;
    }
    if (data?.session === page.session) {
      applyLimits(data);
    } else {
      // Another tab was closed or signed out, or has another session.
      clearTimeout(recheckTimer);
      recheckTimer = setTimeout(check, data ? 0 : GRACE);
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") {
      tick();
      check();
    }
  });
  addEventListener(
    "beforeunload",
    (event) => {
      if (isLeaving) {
        // The page is blank already, so prevent the question whether to leave it.
        event.stopImmediatePropagation();
      }
    },
    true,
  );
  addEventListener("pagehide", ({ persisted }) => {
    if (persisted) {
      hide();
    }
    channel.postMessage(null);
  });
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) {
      blank();
      check();
    }
  });

  const initial = { session: page.session, idle: Number(page.idle), absolute: Number(page.absolute) };
  applyLimits(initial);
  channel.postMessage(initial);
  tick();
  ticking = setInterval(tick, TICK);
})();
