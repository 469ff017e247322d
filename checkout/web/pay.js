// The pay page. Loading it calls nothing: all begins with the customer's press.
(() => {
  "use strict";
  document.documentElement.classList.add("js");
  const $ = (id) => document.getElementById(id);
  const main = $("main"), live = $("live");
  const text = JSON.parse($("texts").textContent);
  const base = location.pathname.replace(/\/+$/, "");
  const nonce = document.body.dataset.nonce;
  const forgiving = 20000; // between two renewals of the card form nobody asked for

  let state = JSON.parse($("state").textContent);
  let screen = main.dataset.screen;
  let skew = Date.parse(state.now) - Date.now(); // the server's clock decides
  let busy = false;
  let form = null; // the card form that is shown: {checkout, issuedAt, timers}
  let told = false; // the last two minutes were announced
  let ended = null; // the end of the window that the server was asked about
  let askWait = 0; // when the server may be asked again whether a wait is over
  let waiting = 0; // which round of polling is the current one

  class Answer extends Error {
    constructor(status, body) {
      super("answered " + status);
      this.status = status;
      this.body = body || {};
    }
  }

  // call sends a POST with a body, else a GET. It throws an Answer for a
  // refusal and anything else when no answer came.
  async function call(path, body, wait) {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), wait);
    try {
      const init = { method: "GET", cache: "no-store", headers: { Accept: "application/json" }, signal: stop.signal };
      if (body) {
        init.method = "POST";
        init.body = JSON.stringify(body);
        init.headers["Content-Type"] = "application/json";
        init.headers["X-Paythread-Nonce"] = nonce;
      }
      const response = await fetch(base + path, init);
      const answer = await response.json().catch(() => null);
      if (answer && answer.now) skew = Date.parse(answer.now) - Date.now();
      if (!response.ok || !answer) throw new Answer(response.status, answer);
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  const say = (words) => { live.textContent = words; };

  // swap shows a new screen, moves the focus to its heading and announces it.
  function swap(name, template) {
    screen = name;
    main.dataset.screen = name;
    main.replaceChildren($(template).content.cloneNode(true));
    return main.querySelector("h1");
  }
  function announce(heading, words) {
    heading.focus();
    window.scrollTo(0, 0);
    document.title = heading.textContent;
    say(heading.textContent + ". " + (words || ""));
  }

  // outcome shows a screen that says something; next has the server's words.
  function outcome(next) {
    closeForm();
    const heading = swap(next.screen, "t-outcome"), wait = $("wait");
    main.querySelector(".mark").dataset.kind = next.mark;
    heading.textContent = next.title;
    main.querySelector(".message").textContent = next.message;
    wait.hidden = !next.retry_at;
    $("wait-left").textContent = next.wait || "";
    $("receipt").hidden = !next.receipt;
    $("again").hidden = !next.can_retry;
    announce(heading, next.message + (next.retry_at ? " " + wait.textContent : ""));
  }

  // render shows what the server says.
  function render(next) {
    state = next;
    busy = false;
    waiting++;
    if (next.screen === "ask") {
      closeForm();
      announce(swap("ask", "t-ask"));
    } else {
      outcome(next);
    }
    tick();
    if (next.screen === "processing") poll();
  }

  function trouble(why) {
    busy = false;
    waiting++;
    outcome({ screen: "trouble", mark: "warn", title: text.js_trouble_title, message: text["js_trouble_" + why], can_retry: true });
    tick();
  }
  function stale() {
    busy = false;
    waiting++;
    outcome({ screen: "stale", mark: "warn", title: text.js_stale_title, message: text.js_stale_message });
    tick();
  }

  // refused deals with everything that call can throw, and never leaves the
  // customer without a next step.
  function refused(err) {
    if (!(err instanceof Answer)) return trouble("network");
    if (err.body.screen) return render(err.body);
    if (err.status === 403 || err.status === 404 || err.status === 410) return stale();
    if (err.status === 422) return trouble("token");
    return trouble("busy");
  }

  // pay is the page's first button, and "Try again".
  async function pay() {
    if (busy) return;
    busy = true;
    const button = main.querySelector("[data-do=pay]:not([hidden])");
    const label = button && button.textContent;
    if (button) {
      button.setAttribute("aria-disabled", "true");
      button.textContent = text.js_busy;
    }
    const release = () => {
      busy = false;
      if (button) {
        button.removeAttribute("aria-disabled");
        button.textContent = label;
      }
    };
    pay.release = release; // for a page that comes back from the browser's cache
    let ready;
    try {
      ready = await call(state.opened ? "/context" : "/open", {}, 30000);
    } catch (err) {
      release();
      return refused(err);
    }
    await show(ready, false);
    release();
  }

  const libraries = new Map();
  function load(source, integrity) {
    if (!integrity) return Promise.reject(new Error("no integrity"));
    if (!libraries.has(source)) {
      libraries.set(source, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        const timer = setTimeout(() => script.onerror(), 25000);
        script.src = source;
        script.integrity = integrity;
        script.crossOrigin = "anonymous";
        script.referrerPolicy = "no-referrer";
        script.onload = () => { clearTimeout(timer); resolve(); };
        script.onerror = () => {
          clearTimeout(timer);
          libraries.delete(source); // the next press tries again
          script.remove();
          reject(new Error("library"));
        };
        document.head.append(script);
      }));
    }
    return libraries.get(source);
  }

  function closeForm() {
    if (!form) return;
    const { checkout, timers, watch } = form;
    form = null;
    timers.forEach(clearTimeout);
    watch.disconnect();
    // It may be half made; it goes away with its elements.
    try { Promise.resolve(checkout && checkout.destroy && checkout.destroy()).catch(() => {}); } catch { /* as above */ }
  }

  // show brings up the card form for a capture context. Only the newest form
  // may charge: an older one's token is dropped.
  async function show(ready, renewed) {
    state.opened = true;
    state.can_retry = true;
    state.pay_by = ready.pay_by;
    try {
      await load(ready.library, ready.integrity);
    } catch {
      return trouble("script");
    }
    closeForm();
    const heading = swap("card", "t-card");
    const mine = form = { checkout: null, issuedAt: Date.now(), timers: [], watch: null };
    const hosts = [$("payment-selection"), $("payment-screen")];
    mine.watch = new MutationObserver(() => {
      if (hosts.some((host) => host.childElementCount)) $("loading").hidden = true;
    });
    hosts.forEach((host) => mine.watch.observe(host, { childList: true }));
    mine.timers.push(setTimeout(() => {
      if (form === mine && !$("loading").hidden) trouble("script");
    }, 30000));
    const life = Date.parse(ready.context_expires_at) - Date.now() - skew - 5000;
    mine.timers.push(setTimeout(() => { if (form === mine) renew(); }, Math.max(life, forgiving)));
    announce(heading, renewed ? text.js_renewed : "");
    tick();
    mount(mine, ready.context); // goes on while the customer types
  }

  async function mount(mine, context) {
    let token;
    try {
      const client = await window.VAS.UnifiedCheckout(context);
      mine.checkout = await client.createCheckout({ autoProcessing: false });
      if (form !== mine) return;
      token = await mine.checkout.mount({ paymentSelection: "#payment-selection", paymentScreen: "#payment-screen" });
    } catch (err) {
      if (form !== mine) return;
      if (err && err.reason === "CAPTURE_CONTEXT_EXPIRED" && Date.now() - mine.issuedAt > forgiving) return renew();
      return trouble("form");
    }
    if (form === mine && typeof token === "string") charge(token);
    else if (form === mine) trouble("form");
  }

  // renew replaces a form whose context has expired.
  async function renew() {
    if (busy) return;
    busy = true;
    try {
      await show(await call("/context", {}, 30000), true);
    } catch (err) {
      refused(err);
    }
    busy = false;
  }

  const tries = (s) => (s.attempt ? s.attempt.n : 0);

  async function charge(token) {
    const before = tries(state);
    busy = true;
    waiting++;
    outcome({ screen: "processing", mark: "wait", title: text.js_processing_title, message: text.js_processing_message });
    tick();
    try {
      render(await call("/charge", { transient_token: token }, 90000));
    } catch (err) {
      // With no answer, or a broken one, the charge may well be under way.
      if (!(err instanceof Answer) || err.status >= 500) return poll(before);
      refused(err);
    }
  }

  // poll asks what became of a payment until it is known. before is the number
  // of tries there were when a charge was sent and no answer came: if the
  // server still knows of no new one, it never arrived.
  async function poll(before) {
    const round = ++waiting;
    let pause = 1500, unheard = 0;
    for (let n = 1; ; n++) {
      await new Promise((wake) => setTimeout(wake, pause));
      if (round !== waiting) return;
      pause = Math.min(pause * 1.25, 10000);
      if (n === 12) {
        const message = main.querySelector(".message");
        if (message) message.textContent = text.js_slow;
        say(text.js_slow);
      }
      let next;
      try {
        next = await call("/state", null, 15000);
      } catch (err) {
        if (err instanceof Answer && err.status < 500 && err.status !== 429) return refused(err);
        continue;
      }
      if (round !== waiting) return;
      if (next.screen === "processing") {
        // There are several ways to wait: another one has a heading of its own.
        if (next.title !== main.querySelector("h1").textContent) return render(next);
        continue;
      }
      if (before !== undefined && next.can_retry && tries(next) === before) {
        if (++unheard < 3) continue;
        state = next;
        return trouble("unheard");
      }
      return render(next);
    }
  }

  async function extend() {
    if (extend.busy) return;
    extend.busy = true;
    try {
      const next = await call("/extend", {}, 20000);
      const card = screen === "card" && next.can_retry;
      if (card || screen === "trouble") {
        state = next;
        main.querySelector("h1").focus({ preventScroll: true }); // the button that had it goes away
      } else render(next);
      told = false;
      say(text.js_extended);
      tick();
    } catch (err) {
      // The form stays: the press may be repeated while there is time.
      if (err instanceof Answer && err.body.screen) render(err.body);
      else say(text.js_trouble_network);
    }
    extend.busy = false;
  }

  // tick runs while there is a time to show.
  function tick() {
    clearTimeout(tick.timer);
    const runs = [windowLeft(), waitLeft()];
    if (runs.includes(true)) tick.timer = setTimeout(tick, 1000 - ((Date.now() + skew) % 1000) + 20);
  }

  const until = (time) => Date.parse(time) - Date.now() - skew;
  function inDigits(time) {
    const seconds = Math.max(0, Math.ceil(time / 1000)), two = (n) => String(Math.floor(n)).padStart(2, "0");
    return (seconds < 3600 ? Math.floor(seconds / 60) : Math.floor(seconds / 3600) + ":" + two((seconds % 3600) / 60)) + ":" + two(seconds % 60);
  }

  // windowLeft shows the time left to pay, and offers more of it two minutes
  // before the end.
  function windowLeft() {
    const clock = $("clock");
    const shown = state.pay_by && (state.can_retry || state.retry_at) &&
      ["ask", "declined", "not_taken", "too_soon", "card", "trouble"].includes(screen);
    clock.hidden = !shown;
    if (!shown) return false;
    const left = until(state.pay_by), last = left <= 120000;
    $("left").textContent = inDigits(left);
    clock.classList.toggle("last", last);
    $("extend").hidden = !last;
    if (last && !told) {
      told = true;
      say(text.js_two_minutes);
    }
    if (left > 0) return true;
    if (ended !== state.pay_by) {
      ended = state.pay_by;
      refresh(true);
    }
    return false;
  }

  // waitLeft shows how long the next try has to wait. When that is over the
  // server is asked for the screen, and again if its clock is behind.
  function waitLeft() {
    if (screen !== "too_soon" || !state.retry_at) return false;
    const left = until(state.retry_at);
    $("wait-left").textContent = inDigits(left);
    if (left <= 0 && Date.now() > askWait) {
      askWait = Date.now() + 5000;
      refresh(false);
    }
    return true;
  }

  // refresh takes the server's word, when the page comes back and when the
  // time is over. It leaves a card form alone that can still be used.
  async function refresh(force) {
    if (busy) return;
    try {
      const next = await call("/state", null, 15000);
      if (busy) return;
      if (screen === "card" && next.can_retry) {
        state = next;
        tick();
      } else if (force || next.screen !== screen || next.screen === "processing") render(next);
    } catch { /* a press will tell */ }
  }

  async function receipt(target) {
    if (busy) return;
    busy = true;
    try {
      const answer = await call("/receipt", {}, 20000);
      location.assign(answer.location);
    } catch {
      target.submit(); // the browser's own way, with its own error page
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) ({ pay, extend })[button.dataset.do]();
  });
  document.addEventListener("submit", (event) => {
    event.preventDefault();
    receipt(event.target);
  });
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    // Whatever was under way when the page was left, it is not any more.
    if (pay.release) pay.release();
    busy = false;
    waiting++;
    refresh(false);
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) tick();
  });

  tick();
  if (screen === "processing") poll();
})();
