// A client library for the tests, as small as the page's use of the real one.
(() => {
  window.VAS = {
    UnifiedCheckout: async (context) => ({
      createCheckout: async (options) => {
        if (options.autoProcessing !== false) throw new Error("autoProcessing");
        let mounted = false, gone = false;
        return {
          mount: (selectors) => new Promise((resolve, reject) => {
            if (mounted) return reject({ name: "UnifiedCheckoutError", reason: "CHECKOUT_ALREADY_MOUNTED" });
            mounted = true;
            const button = document.createElement("button");
            button.type = "button";
            button.id = "card-pay";
            button.dataset.context = context;
            button.textContent = "Pay by card";
            button.addEventListener("click", () => { if (!gone) resolve("token-" + context); });
            const broken = document.createElement("button");
            broken.type = "button";
            broken.id = "card-break";
            broken.textContent = "Break";
            broken.addEventListener("click", () => reject({ name: "UnifiedCheckoutError", reason: "TOKENIZATION_ERROR" }));
            const expired = document.createElement("button");
            expired.type = "button";
            expired.id = "card-expire";
            expired.textContent = "Expire";
            expired.addEventListener("click", () => reject({ name: "UnifiedCheckoutError", reason: "CAPTURE_CONTEXT_EXPIRED" }));
            document.querySelector(selectors.paymentSelection).append(broken, expired);
            document.querySelector(selectors.paymentScreen).append(button);
          }),
          destroy: async () => { gone = true; },
        };
      },
    }),
  };
})();
