// Watches over the session of the page that it stands in: warns before the limit, and blanks the page at it.
// All that it needs to know stands in the data- attributes of its tag, which {% phi_oidc_session %} writes.
(() => {
  "use strict";

  const page = document.currentScript.dataset;
  const root = document.documentElement;
  const WARNING = page.warning * 1000;
  const TICK = 1000;
  const SLEPT = 90 * 1000; // The timers of a hidden page run once a minute.
  const GRACE = 2000; // In it, the page to which another tab goes has told of itself.
  const PATIENCE = 5000;

  const channel = new BroadcastChannel(`django_phi_oidc ${page.url}`);
  const began = Date.now() - performance.now();
  let idleEnds;
  let absoluteEnds;
  let ticked = now();
  let ticking;
  let doubt; // The timer of a question that another tab gives rise to.
  let dialog;
  let isAsking = false;
  let isSure = false; // The server was asked whether the limit is near.
  let isDismissed = false;
  let isBlank = false;
  let isLeaving = false;

  // Of two clocks the one that is ahead: one may stand still while the machine sleeps, the other may be set back.
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

  // Takes over what the server has said of this session, here or in another tab.
  function learn({ idle, absolute }) {
    clearTimeout(doubt);
    idleEnds = now() + idle * 1000;
    absoluteEnds = now() + absolute * 1000;
    show();
  }

  // Returns what the server says of the session; null when there is none, undefined when it does not say.
  async function ask(method) {
    const options = { method, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(PATIENCE) };
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

  // Returns whether the session lives; when it does not, the page is gone.
  async function hear(method) {
    const answer = await ask(method);
    if (isLeaving) {
      return false;
    }
    if (answer && answer.session === page.session) {
      channel.postMessage(answer);
      page.token = answer.token;
      if (isBlank) {
        // By GET, whatever made this page. With its fragment the browser would not ask the server.
        leave(location.pathname + location.search);
      } else {
        learn(answer);
      }
    } else if (answer !== undefined || isBlank || now() >= ends()) {
      leave(page.expired);
    } else {
      show();
      return false;
    }
    return !isLeaving;
  }

  async function check() {
    if (!isAsking) {
      isAsking = true;
      await hear("GET");
      isAsking = false;
    }
  }

  function tick() {
    if (isBlank) {
      return;
    }
    const hasSlept = now() - ticked > SLEPT;
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
      isSure = isDismissed = false;
      dialog?.close();
    } else if (!isSure) {
      // A script of this page may have been active without our knowledge.
      isSure = true;
      check();
    } else if (!isDismissed) {
      dialog ??= build();
      dialog.tell(Math.ceil(left / 1000), idleEnds < absoluteEnds);
      if (!dialog.open) {
        dialog.showModal();
      }
    }
  }

  function build() {
    const made = document.createElement("dialog");
    const add = (name, attributes) => {
      const element = document.createElement(name);
      Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
      made.append(element);
      return element;
    };
    made.className = "phi-oidc-warning";
    made.setAttribute("role", "alertdialog");
    made.setAttribute("aria-labelledby", "phi-oidc-warning-title");
    made.setAttribute("aria-describedby", "phi-oidc-warning-text phi-oidc-warning-time");
    const title = add("h2", { id: "phi-oidc-warning-title" });
    const text = add("p", { id: "phi-oidc-warning-text" });
    const time = add("p", { id: "phi-oidc-warning-time", role: "timer" });
    const fault = add("p", { role: "alert" });
    const button = add("button", { type: "button", autofocus: "" });
    let canStay;

    made.tell = (seconds, isIdle) => {
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
        made.close();
      } else if (await hear("POST")) {
        warn();
      } else if (!isLeaving) {
        fault.textContent = page.failed;
      }
    });
    // Who presses Escape is there.
    made.addEventListener("cancel", (event) => {
      event.preventDefault();
      button.click();
    });
    document.body.append(made);
    return made;
  }

  channel.addEventListener("message", ({ data }) => {
    if (isLeaving) {
      return;
    }
    if (data?.session === page.session) {
      learn(data);
    } else {
      // Another tab has left, perhaps by signing out, or is in another session.
      clearTimeout(doubt);
      doubt = setTimeout(check, data ? 0 : GRACE);
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
        // The page is gone: nobody is to be asked whether to leave it.
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

  const first = { session: page.session, idle: Number(page.idle), absolute: Number(page.absolute) };
  learn(first);
  channel.postMessage(first);
  tick();
  ticking = setInterval(tick, TICK);
})();
