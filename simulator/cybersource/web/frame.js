// The card form. It sends the card to its own origin only, and gives the page that framed it the
// transient token.
(() => {
  "use strict";

  const settings = JSON.parse(document.getElementById("settings").textContent);
  const byId = (id) => document.getElementById(id);
  const form = byId("form"), number = byId("number"), expiry = byId("expiry"), cvn = byId("cvn"), pay = byId("pay");
  const payText = pay.textContent;
  let sending = false;

  const tell = (message) => window.parent.postMessage({ ...message, frame: settings.frame }, settings.origin);

  // Only the page that this form was made for is listened to.
  window.addEventListener("message", (event) => {
    if (event.source !== window.parent || event.origin !== settings.origin) return;
    if (event.data?.type === "uc.focus" && event.data.frame === settings.frame) number.focus();
  });

  // ---- cards

  const digitsOf = (text) => text.replace(/\D/g, "");

  // A network is known as soon as the typed digits can only belong to its ranges.
  function networkOf(digits) {
    if (digits === "") return undefined;
    const low = Number(digits.slice(0, 6).padEnd(6, "0")), high = Number(digits.slice(0, 6).padEnd(6, "9"));
    return settings.networks.find((n) => n.ranges.some(([from, to]) => low >= from && high <= to));
  }

  function luhn(digits) {
    let sum = 0;
    for (let i = 0; i < digits.length; i++) {
      let d = Number(digits[digits.length - 1 - i]);
      if (i % 2 === 1) { d *= 2; if (d > 9) d -= 9; }
      sum += d;
    }
    return sum % 10 === 0;
  }

  function grouped(digits) {
    const groups = networkOf(digits)?.name === "AMEX" ? [4, 6, 5] : [4, 4, 4, 4, 3];
    const parts = [];
    let at = 0;
    for (const size of groups) {
      if (at >= digits.length) break;
      parts.push(digits.slice(at, at + size));
      at += size;
    }
    return parts.join(" ");
  }

  // rewrite formats a field and keeps the caret behind the digit that it stood behind.
  function rewrite(input, formatted) {
    if (input.value === formatted) return;
    const before = digitsOf(input.value.slice(0, input.selectionStart ?? input.value.length)).length;
    const atEnd = (input.selectionStart ?? input.value.length) === input.value.length;
    input.value = formatted;
    if (document.activeElement !== input) return;
    let at = 0, seen = 0;
    while (at < formatted.length && seen < before) if (/\d/.test(formatted[at++])) seen++;
    if (atEnd) at = formatted.length;
    input.setSelectionRange(at, at);
  }

  function readExpiry() {
    const [, month, year] = expiry.value.match(/^\s*(\d{1,2})\s*[/.-]?\s*(\d{4}|\d{2})\s*$/) || [];
    if (!month) return undefined;
    return { month: month.padStart(2, "0"), year: year.length === 2 ? `20${year}` : year };
  }

  // ---- what is wrong with a field: a sentence, or nothing

  const optionalIn = (country) => !["US", "CA"].includes(country);
  const required = (sentence) => (input) => (input.value.trim() === "" ? sentence : "");

  const checks = {
    number(input) {
      const digits = digitsOf(input.value), network = networkOf(digits);
      if (digits === "") return "Enter the card number.";
      if (network && !network.taken) return `${network.label} is not accepted here. Use another card.`;
      if (digits.length < Math.min(...(network?.lengths || [12]))) return "The card number is too short.";
      if (!luhn(digits)) return "Check the card number: one of its digits is wrong.";
      if (!network || !network.lengths.includes(digits.length)) return "This is not the number of a card we know.";
      return "";
    },
    expiry() {
      if (expiry.value.trim() === "") return "Enter the expiry date.";
      const date = readExpiry();
      if (!date) return "Write the month and the year, like 08 / 29.";
      if (Number(date.month) < 1 || Number(date.month) > 12) return "The month is a number from 01 to 12.";
      const now = new Date();
      if (new Date(Number(date.year), Number(date.month), 1) <= now) return "This card has expired.";
      if (Number(date.year) > now.getFullYear() + 20) return "Check the year: it is too far ahead.";
      return "";
    },
    cvn(input) {
      const wanted = networkOf(digitsOf(number.value))?.cvn || 3;
      if (digitsOf(input.value).length === wanted && /^\d+$/.test(input.value)) return "";
      return wanted === 4 ? "Enter the 4 digits on the front of the card." : "Enter the 3 digits on the back of the card.";
    },
    name: required("Enter the name as it is on the card."),
    email(input) {
      if (input.value.trim() === "") return "Enter an e-mail address.";
      return /^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(input.value.trim()) ? "" : "Check the e-mail address: it should look like name@example.com.";
    },
    phone(input) {
      return digitsOf(input.value).length >= 6 ? "" : "Enter a phone number.";
    },
    country: required("Choose a country."),
    address1: required("Enter the street and number."),
    locality: required("Enter the city."),
    administrativeArea: (input) => (optionalIn(byId("country").value) || input.value.trim() ? "" : "Enter the state or province."),
    postalCode: (input) => (optionalIn(byId("country").value) || input.value.trim() ? "" : "Enter the postal code."),
  };
  const inputs = Object.keys(checks).map(byId).filter(Boolean);

  function show(input, sentence) {
    byId(`${input.id}-error`).textContent = sentence;
    if (sentence) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }

  function alarm(sentence) {
    const alert = byId("alert");
    alert.textContent = sentence;
    alert.hidden = sentence === "";
  }

  for (const input of inputs) {
    const check = () => show(input, checks[input.id](input));
    // A field is judged when it is left, not while it is typed; once judged, it is cleared at once.
    input.addEventListener("blur", () => { if (input.value.trim() !== "") check(); });
    input.addEventListener("input", () => { if (input.hasAttribute("aria-invalid") && checks[input.id](input) === "") check(); });
  }

  // ---- typing

  let announced = "";
  function numberChanged() {
    const digits = digitsOf(number.value).slice(0, 19), network = networkOf(digits);
    rewrite(number, grouped(digits));
    byId("brand").textContent = network?.label || "";
    const length = network?.cvn || 3;
    byId("cvn-hint").textContent = `${length} digits`;
    cvn.maxLength = length;
    if ((network?.name || "") !== announced) {
      announced = network?.name || "";
      tell({ type: "uc.update", network: announced });
    }
  }
  number.addEventListener("input", numberChanged);

  expiry.addEventListener("input", (event) => {
    const deleting = event.inputType?.startsWith("delete");
    let digits = digitsOf(expiry.value);
    if (digits.length === 1 && Number(digits) > 1) digits = `0${digits}`;
    // Autofill may write four digits of year.
    if (digits.length === 6 && digits.slice(2, 4) === "20") digits = digits.slice(0, 2) + digits.slice(4);
    digits = digits.slice(0, 4);
    let formatted = digits;
    if (digits.length > 2) formatted = `${digits.slice(0, 2)} / ${digits.slice(2)}`;
    else if (digits.length === 2 && !deleting) formatted = `${digits} / `;
    rewrite(expiry, formatted);
  });

  cvn.addEventListener("input", () => rewrite(cvn, digitsOf(cvn.value).slice(0, cvn.maxLength)));

  // ---- countries

  const country = byId("country");
  if (country) {
    const codes = ("AD AE AF AG AI AL AM AO AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GT GU GW GY HK HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW").split(" ");
    const names = new Intl.DisplayNames(["en"], { type: "region" });
    const options = codes.map((code) => [names.of(code), code]).sort((a, b) => a[0].localeCompare(b[0]))
      .map(([name, code]) => new Option(name, code, code === settings.country, code === settings.country));
    country.replaceChildren(...options);
    const adapt = () => {
      for (const mark of document.querySelectorAll("[data-optional]")) mark.hidden = !optionalIn(country.value);
      for (const id of ["administrativeArea", "postalCode"]) if (byId(id)) byId(id).required = !optionalIn(country.value);
    };
    country.addEventListener("change", adapt);
    adapt();
  }

  // ---- test cards

  const put = (id, value, always) => {
    const input = byId(id);
    if (!input || (!always && input.value.trim() !== "")) return;
    input.value = value;
    show(input, "");
  };
  for (const button of document.querySelectorAll("[data-card]")) {
    button.addEventListener("click", () => {
      put("number", button.dataset.card, true);
      numberChanged();
      put("expiry", `12 / ${String(new Date().getFullYear() + 3).slice(2)}`, true);
      put("cvn", "1234".slice(0, cvn.maxLength), true);
      put("name", "Thandi Mokoena");
      put("email", "thandi@example.test");
      put("phone", "+27825550123");
      put("address1", "1 Long Street");
      put("locality", "Cape Town");
      put("administrativeArea", "WC");
      put("postalCode", "8001");
      alarm("");
      pay.focus();
    });
  }

  // ---- paying

  const valueOf = (id) => byId(id)?.value.trim() || "";

  function billTo() {
    const words = valueOf("name").split(/\s+/);
    const last = words.length > 1 ? words.pop() : words[0];
    const bill = { firstName: words.join(" "), lastName: last, email: valueOf("email"), phoneNumber: digitsOf(valueOf("phone")) };
    for (const id of ["country", "address1", "locality", "administrativeArea", "postalCode"]) bill[id] = valueOf(id);
    return bill;
  }

  function busy(on) {
    sending = on;
    pay.setAttribute("aria-disabled", String(on));
    pay.textContent = on ? "Processing…" : payText;
    byId("status").textContent = on ? "Processing" : "";
    for (const control of [...inputs, byId("cancel"), ...document.querySelectorAll("[data-card]")]) control.disabled = on;
  }

  const fieldOf = {
    "card.number": "number", "card.expirationMonth": "expiry", "card.expirationYear": "expiry", "card.securityCode": "cvn",
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sending) return;
    alarm("");
    const wrong = inputs.filter((input) => { const sentence = checks[input.id](input); show(input, sentence); return sentence; });
    if (wrong.length > 0) {
      wrong[0].focus();
      return;
    }
    const date = readExpiry();
    const body = JSON.stringify({
      frame: settings.frame,
      card: { number: digitsOf(number.value), expirationMonth: date.month, expirationYear: date.year, securityCode: cvn.value },
      billTo: billTo(),
    });
    busy(true);
    let response, answer;
    try {
      response = await fetch("/flex/v2/tokens", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      answer = await response.json();
    } catch {
      busy(false);
      alarm("The connection failed and nothing was charged. Try again.");
      pay.focus();
      return;
    }
    if (response.ok) {
      tell({ type: "uc.token", token: answer.transientToken });
      return;
    }
    busy(false);
    const details = (answer.details || []).filter((d) => fieldOf[d.location]);
    for (const d of details) show(byId(fieldOf[d.location]), "Check this: it was not accepted.");
    if (details.length > 0) {
      alarm("The card was not accepted. Nothing was charged.");
      byId(fieldOf[details[0].location]).focus();
      return;
    }
    if (answer.reason === "CAPTURE_CONTEXT_EXPIRED" || answer.reason === "CAPTURE_CONTEXT_INVALID") {
      alarm("This form has been open too long. Nothing was charged.");
      const { reason, message, correlationId, informationLink } = answer;
      tell({ type: "uc.failed", reason, message, correlationId, informationLink });
      return;
    }
    alarm("Something went wrong and nothing was charged. Try again.");
    pay.focus();
  });

  byId("cancel").addEventListener("click", () => tell({ type: "uc.cancel" }));
  form.addEventListener("keydown", (event) => { if (event.key === "Escape" && !sending) tell({ type: "uc.cancel" }); });

  new ResizeObserver(() => tell({ type: "uc.height", height: document.body.getBoundingClientRect().height })).observe(document.body);
  tell({ type: "uc.ready" });
})();
