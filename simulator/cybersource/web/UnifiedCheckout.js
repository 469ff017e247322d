// Unified Checkout v1, simulated: window.VAS.UnifiedCheckout(sessionJwt).
//
// It needs of the page's content policy only script-src, connect-src and frame-src for this script's
// own origin. It adds no inline script and no style element to the page, and never sees a card: the
// form lives in a frame of this script's origin and hands out nothing but the transient token.
(() => {
  "use strict";

  const home = new URL(document.currentScript.src).origin;
  const mountTimeout = 30000;
  const smallest = 160, tallest = 4000;

  class UnifiedCheckoutError extends Error {
    constructor(reason, message, more = {}) {
      super(message);
      this.name = "UnifiedCheckoutError";
      this.reason = reason;
      this.details = more.details || [];
      this.correlationId = more.correlationId || "";
      this.informationLink = more.informationLink || "";
    }
  }

  // Emitter has the events of clients and checkouts; "*" hears all of them.
  class Emitter {
    #listeners = new Map();

    on(name, listener) {
      if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
      this.#listeners.get(name).add(listener);
      return this;
    }

    once(name, listener) {
      const once = (event) => { this.off(name, once); listener(event); };
      return this.on(name, once);
    }

    off(name, listener) {
      if (listener) this.#listeners.get(name)?.delete(listener);
      else this.#listeners.delete(name);
      return this;
    }

    _emit(name, data = {}) {
      const event = { type: name, ...data };
      for (const key of [name, "*"]) {
        for (const listener of [...(this.#listeners.get(key) || [])]) {
          // A page's broken listener must not stop a payment.
          try { listener(event); } catch (err) { console.error(err); }
        }
      }
    }

    _fail(source, error) {
      this._emit("error", { source, code: error.reason, message: error.message });
      return error;
    }
  }

  // text/plain keeps the request a simple one, which needs no preflight.
  async function post(path, body, failure) {
    let response, answer;
    try {
      response = await fetch(home + path, {
        method: "POST", mode: "cors", credentials: "omit",
        headers: { "Content-Type": "text/plain" }, body: JSON.stringify(body),
      });
      answer = await response.json();
    } catch {
      throw new UnifiedCheckoutError(failure, "The connection failed.");
    }
    if (!response.ok) throw new UnifiedCheckoutError(answer.reason || failure, answer.message || "The request was refused.", answer);
    return answer;
  }

  function style(element, values) {
    for (const [name, value] of Object.entries(values)) element.style.setProperty(name, value);
    return element;
  }

  function find(selector) {
    if (typeof selector !== "string" || selector === "") {
      throw new UnifiedCheckoutError("MOUNT_CONTAINER_SELECTOR", "A container is given by a CSS selector.");
    }
    let found;
    try { found = document.querySelector(selector); } catch {
      throw new UnifiedCheckoutError("MOUNT_CONTAINER_SELECTOR", "The CSS selector of a container is not valid.");
    }
    if (!found) throw new UnifiedCheckoutError("MOUNT_INVALID_CONTAINER", "A container is not on the page.");
    return found;
  }

  // sidebar stands in where the page gives no container.
  function sidebar() {
    const panel = style(document.createElement("div"), {
      position: "fixed", top: "0", right: "0", bottom: "0", width: "min(100%, 420px)", "z-index": "2147483647",
      "overflow-y": "auto", padding: "16px", "box-sizing": "border-box", background: "#fff", "box-shadow": "0 0 32px rgba(15, 23, 42, .3)",
    });
    panel.setAttribute("role", "dialog");
    panel.setAttribute("aria-label", "Payment");
    document.body.append(panel);
    return panel;
  }

  class Checkout extends Emitter {
    #session; #auto; #state = "new"; #added = []; #frame; #button; #screen; #settle; #timer; #completing = false;

    constructor(session, options) {
      super();
      this.#session = session;
      this.#auto = options.autoProcessing ?? session.hasMandate;
    }

    mount(containers) {
      if (this.#state !== "new") {
        return Promise.reject(this._fail("mount", new UnifiedCheckoutError("CHECKOUT_ALREADY_MOUNTED", "This checkout was mounted before. Create another one.")));
      }
      let selection, screen;
      try {
        if (containers === undefined || containers === null) {
          selection = screen = sidebar();
          this.#added.push(selection);
        } else if (typeof containers === "object") {
          selection = find(containers.paymentSelection);
          screen = containers.paymentScreen === undefined ? selection : find(containers.paymentScreen);
        } else {
          selection = screen = find(containers);
        }
      } catch (err) {
        return Promise.reject(this._fail("mount", err));
      }
      this.#state = "mounted";
      this.#screen = screen;
      const outcome = new Promise((resolve, reject) => { this.#settle = { resolve, reject }; });
      window.addEventListener("message", this.#hear);
      this.#addButton(selection);
      // After mount has returned, so that listeners added to its promise's checkout are heard.
      queueMicrotask(() => {
        this._emit("mounted");
        this._emit("ready", { availablePaymentMethods: this.#session.availablePaymentMethods });
      });
      return outcome;
    }

    #addButton(container) {
      const button = style(document.createElement("button"), {
        display: "block", width: "100%", "min-height": "48px", margin: "0", padding: "12px 16px", border: "0", "border-radius": "8px",
        background: "#14213d", color: "#fff", font: "600 16px/1.5 system-ui, sans-serif", cursor: "pointer",
      });
      button.type = "button";
      button.textContent = this.#session.buttonText;
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", () => this.#choose());
      container.append(button);
      this.#button = button;
      this.#added.push(button);
    }

    #choose() {
      if (this.#frame) return;
      this._emit("paymentMethodSelected", { paymentMethod: "PANENTRY" });
      const frame = style(document.createElement("iframe"), {
        display: "block", width: "100%", height: "420px", border: "0", "color-scheme": "light",
      });
      frame.title = "Card details";
      frame.src = home + this.#session.path;
      this.#button.style.display = "none";
      this.#button.setAttribute("aria-expanded", "true");
      this.#frame = frame;
      this.#added.push(frame);
      this.#timer = setTimeout(() => this.#reject("mount", new UnifiedCheckoutError("MOUNT_PAYMENT_TIMEOUT", "The card form did not load in time.")), mountTimeout);
      this.#screen.append(frame);
    }

    #closeFrame() {
      clearTimeout(this.#timer);
      this.#frame?.remove();
      this.#added = this.#added.filter((element) => element !== this.#frame);
      this.#frame = undefined;
      this.#button.style.display = "block";
      this.#button.setAttribute("aria-expanded", "false");
    }

    // Only this checkout's own frame, from this script's own origin, is listened to.
    #hear = (event) => {
      if (event.origin !== home || !this.#frame || event.source !== this.#frame.contentWindow) return;
      const message = event.data;
      if (typeof message !== "object" || message === null || message.frame !== this.#session.frame) return;
      switch (message.type) {
        case "uc.ready":
          clearTimeout(this.#timer);
          // The form was asked for by a press, so it takes the focus.
          this.#frame.contentWindow.postMessage({ type: "uc.focus", frame: this.#session.frame }, home);
          break;
        case "uc.height":
          if (Number.isFinite(message.height)) {
            this.#frame.style.height = `${Math.min(tallest, Math.max(smallest, Math.ceil(message.height)))}px`;
          }
          break;
        case "uc.update":
          this._emit("paymentMethodUpdate", { paymentMethod: "PANENTRY", network: String(message.network || "") });
          break;
        case "uc.cancel":
          this.#closeFrame();
          this.#button.focus();
          this._emit("paymentMethodCancelled", { paymentMethod: "PANENTRY" });
          break;
        case "uc.failed":
          this.#reject("token", new UnifiedCheckoutError(String(message.reason), String(message.message), message));
          break;
        case "uc.token":
          if (typeof message.token === "string") this.#received(message.token);
          break;
      }
    };

    async #received(token) {
      if (!this.#settle) return;
      if (!this.#auto) {
        this.#settle.resolve(token);
        this.#settle = undefined;
        return;
      }
      try {
        const result = await this.#complete(token);
        this.#settle?.resolve(result);
        this.#settle = undefined;
      } catch (err) {
        this.#reject("complete", err);
      }
    }

    #reject(source, error) {
      this._fail(source, error);
      this.#settle?.reject(error);
      this.#settle = undefined;
    }

    async complete(token) {
      if (this.#auto && this.#session.hasMandate) {
        throw this._fail("complete", new UnifiedCheckoutError("COMPLETE_NOT_ALLOWED", "This checkout completes by itself."));
      }
      try { return await this.#complete(token); } catch (err) { throw this._fail("complete", err); }
    }

    async #complete(token) {
      if (!this.#session.hasMandate) throw new UnifiedCheckoutError("COMPLETE_NOT_ALLOWED", "The capture context has no complete mandate.");
      if (this.#completing) throw new UnifiedCheckoutError("COMPLETE_IN_PROGRESS", "The payment is being completed.");
      this.#completing = true;
      try {
        return (await post("/flex/v2/complete", { frame: this.#session.frame, transientToken: token }, "COMPLETE_ERROR")).result;
      } finally {
        this.#completing = false;
      }
    }

    unmount() {
      if (this.#state !== "mounted") return;
      this.#state = "unmounted";
      clearTimeout(this.#timer);
      window.removeEventListener("message", this.#hear);
      for (const element of this.#added) element.remove();
      this.#added = [];
      this.#frame = undefined;
      if (this.#settle) {
        this.#settle.reject(new UnifiedCheckoutError("CHECKOUT_ERROR", "The checkout was unmounted."));
        this.#settle = undefined;
      }
      this._emit("unready");
      this._emit("unmounted");
    }

    destroy() {
      if (this.#state === "destroyed") return;
      this.unmount();
      this.#state = "destroyed";
      this._emit("destroyed");
    }
  }

  class Client extends Emitter {
    #session; #checkouts = [];

    constructor(session) {
      super();
      this.#session = session;
      queueMicrotask(() => this._emit("created"));
    }

    async createCheckout(options = {}) {
      if (options === null || typeof options !== "object") {
        throw this._fail("createCheckout", new UnifiedCheckoutError("CHECKOUT_VALIDATION_PARAMS", "Options are an object."));
      }
      const checkout = new Checkout(this.#session, options);
      this.#checkouts.push(checkout);
      return checkout;
    }

    destroy() {
      for (const checkout of this.#checkouts) checkout.destroy();
      this.#checkouts = [];
      this._emit("destroyed");
    }
  }

  window.VAS = window.VAS || {};
  window.VAS.UnifiedCheckout = async (sessionJwt) => {
    if (typeof sessionJwt !== "string" || sessionJwt.split(".").length !== 3) {
      throw new UnifiedCheckoutError("CAPTURE_CONTEXT_INVALID", "The capture context is not a JWT.");
    }
    const ancestorOrigins = Array.from(window.location.ancestorOrigins || []);
    return new Client(await post("/uc/v1/clients", { captureContext: sessionJwt, ancestorOrigins }, "SDK_XHR_ERROR"));
  };
})();
