// paythread.js defines <paythread-panel>, the part of Paythread that lives inside a merchant's order-management system.
//
//   <script src="https://pay.example/extension/paythread.js" crossorigin defer></script>
//   <paythread-panel token="..." gateway="https://pay.example"></paythread-panel>
//
// Attributes (token and gateway are properties too; a token set as a property stays out of the document):
//   token         agent session token, made by the merchant's server with POST /v1/agent-sessions
//   gateway       base address of the gateway
//   sealed-order  id of the sealed order; read from the token when left out
//   locale        language of the message to the customer, "en" when left out
//
// Events, all of them bubble and leave the shadow tree:
//   paythread-status        one for each event of the payment request, from its first on, in order, once for each element;
//                           detail: {payment_request_id, order, type, lifecycle, seq, time}
//   paythread-token-needed  the token ends soon or has ended: fetch another and set it; detail: {sealed_order}
//
// The page's content policy must allow the gateway in script-src and connect-src, nothing more: no style is inline, no other
// host is asked. Whatever the server sends is put in as text, never as markup.
//
// script.go puts this file, text.js and panel.css together into the one script that is served; TEXT and STYLE come from there.

// ---- limits ------------------------------------------------------------------------------------------------------------

const STEPS = ['sent', 'delivered', 'read', 'opened', 'checkout_started', 'paid', 'receipt_sent', 'receipt_delivered', 'receipt_viewed'];
const UNPAID_ENDS = ['expired', 'cancelled', 'failed'];
const ENDS = [...UNPAID_ENDS, 'reversed', 'partially_refunded', 'refunded'];
const REPLACEABLE = [...UNPAID_ENDS, 'reversed', 'refunded']; // another request may take the order over
const CHANNEL_REASONS = ['opted_out', 'no_sender', 'channel_unavailable'];

const ANSWER_WITHIN = 30_000; // a call without an answer counts as lost
const SEND_TRIES = 3; // in one press; the next press goes on with the same key
const RENEW_BEFORE = 60_000; // before the token's end
const RENEW_AGAIN = 15_000; // ask again while no new token came
const PREVIEW_AFTER = 350; // since the last key
const SILENCE = 75_000; // the gateway's heartbeats come several times within this
const PRIVATE = { credentials: 'omit', cache: 'no-store', referrerPolicy: 'no-referrer' }; // no cookie, nothing kept
const BACKOFF_FIRST = 500, BACKOFF_MOST = 30_000;

// ---- small parts -------------------------------------------------------------------------------------------------------

// h makes an element. Strings become text nodes; "on" holds listeners; true and false set and leave out an attribute.
function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === 'on') for (const [type, listener] of Object.entries(value)) el.addEventListener(type, listener);
    else if (value === true) el.setAttribute(name, '');
    else if (value !== false && value != null) el.setAttribute(name, value);
  }
  el.append(...children.flat().filter((child) => child != null && child !== false && child !== ''));
  return el;
}

// randomKey also works where crypto.randomUUID does not: on a page served without TLS.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}

// readClaims reads what the token says of itself. It is not verified: only the gateway decides what the token may do.
function readClaims(token) {
  try {
    const payload = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (c) => c.charCodeAt(0))));
  } catch {
    return {};
  }
}

// dialling reads the country's calling code and trunk prefix off one number in both its forms: the end the two have in
// common is the subscriber's part. null when they have too little in common.
function dialling(international, national) {
  const whole = (international || '').replace(/\D/g, ''), local = (national || '').replace(/\D/g, '');
  let same = 0;
  while (same < whole.length && same < local.length && whole[whole.length - 1 - same] === local[local.length - 1 - same]) same++;
  if (same < 4 || same === whole.length) return null;
  return { code: whole.slice(0, whole.length - same), trunk: local.slice(0, local.length - same) };
}

// internationalForm shows what a typed number means abroad, spaced as typed; the gateway alone decides what is sent.
function internationalForm(typed, plan) {
  const text = typed.trim();
  if (/^(\+|00)/.test(text)) return '+' + text.replace(/^(\+|00)/, '').replace(/[^\d ]/g, '').trim();
  const digits = text.replace(/[^\d ]/g, '').trim();
  if (!plan || digits.replace(/ /g, '').length < 4) return '';
  return `+${plan.code} ${plan.trunk && digits.startsWith(plan.trunk) ? digits.slice(plan.trunk.length).trim() : digits}`;
}

// isZero tells whether an amount is absent or nothing.
const isZero = (amount) => !amount || /^-?[0.]*$/.test(amount.value);

const requestPath = (request, rest = '') => `/v1/payment-requests/${encodeURIComponent(request.id)}${rest}`;

// wait ends after ms, or at once when the signal aborts or wake is called.
function wait(ms, signal, onWake = () => {}) {
  return new Promise((resolve) => {
    const timer = setTimeout(end, ms);
    function end() {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    }
    signal?.addEventListener('abort', end, { once: true });
    if (signal?.aborted) end();
    onWake(end);
  });
}

// backoff grows with each failure; the jitter keeps many panels from coming back at the same moment.
function backoff(failures) {
  const most = Math.min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** failures);
  return most / 2 + (Math.random() * most) / 2;
}

// Problem is the gateway's refusal: a definite answer.
class Problem extends Error {
  constructor(status, doc, retryAfter) {
    super(doc.detail || doc.title || '');
    this.status = status;
    this.reason = doc.reason || '';
    this.errors = Array.isArray(doc.errors) ? doc.errors : [];
    this.retryAfter = retryAfter;
  }
}

// Lost means that no answer came, or none that tells what happened. Only a repeat with the same key is safe.
class Lost extends Error {
  constructor(retryAfter = 0) {
    super('no answer');
    this.retryAfter = retryAfter;
  }
}

async function refusal(response) {
  const retryAfter = Number(response.headers.get('Retry-After')) * 1000 || 0;
  if (response.status >= 500 || response.status === 429) return new Lost(retryAfter);
  let doc = {};
  try {
    doc = await response.json();
  } catch {
    // A proxy's page instead of a problem document: the status says enough.
  }
  return new Problem(response.status, doc && typeof doc === 'object' ? doc : {}, retryAfter);
}

// readEvents parses a text/event-stream body, calls onBytes for whatever comes and onEvent for each event in full. What
// was cut off in the middle is dropped, as the standard asks: the resume brings it whole.
async function readEvents(body, onBytes, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', data = [], id = '', type = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes();
    rest += value;
    // A CR at the very end may be half of a CR LF.
    for (let end; (end = rest.search(/\r\n|\n|\r(?!$)/)) >= 0; ) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + (rest.startsWith('\r\n', end) ? 2 : 1));
      if (line === '') {
        if (data.length) onEvent({ id, type: type || 'message', data: data.join('\n') });
        data = [];
        type = '';
        continue;
      }
      if (line[0] === ':') continue;
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const text = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'data') data.push(text);
      else if (field === 'id') id = text;
      else if (field === 'event') type = text;
    }
  }
}

let sheet; // shared by all panels of a page

// ---- the panel ---------------------------------------------------------------------------------------------------------

class PaythreadPanel extends HTMLElement {
  static observedAttributes = ['token', 'gateway', 'sealed-order', 'locale', 'lang'];

  #t = TEXT.en;
  #ui = {}; // elements by name
  #token = '';
  #gateway = '';
  #sealedOrderID = '';
  #life = null; // AbortController: from connected to disconnected, or to another order
  #waiters = new Set(); // those who wait for a new token
  #renewTimer = 0;

  #order = null; // the sealed order
  #plan = null; // the country's calling code and trunk prefix
  #request = null; // the payment request shown
  #events = []; // its log, as far as it came
  #lastSeq = 0;
  #shown = 0; // events up to here are history: they are not announced
  #stream = null; // AbortController of the running stream
  #connected = false;
  #wake = null; // ends the wait for the next connection
  #refreshing = false;
  #clockOffset = null; // the gateway's clock minus ours
  #ticker = 0;

  #unsent = null; // {key, body}: a create whose answer has not come
  #sending = false;
  #previewTimer = 0;
  #previewCall = null;
  #phoneProblem = ''; // found by a preview, shown when the field is left
  #pending = new Map(); // action → its Idempotency-Key until an answer came
  #acting = false;
  #preferred = ''; // channel chosen for the next form

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    if (!sheet) {
      sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
    }
    root.adoptedStyleSheets = [sheet];
    this.#build(root);
  }

  get token() { return this.#token; }
  set token(value) { this.#takeToken(String(value ?? '')); }
  get gateway() { return this.#gateway; }
  set gateway(value) { this.setAttribute('gateway', value); }

  connectedCallback() {
    // The page may have set properties before this script had arrived.
    for (const name of ['token', 'gateway']) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    this.#life = new AbortController();
    const signal = this.#life.signal;
    addEventListener('online', () => this.#online(), { signal });
    document.addEventListener('visibilitychange', () => document.hidden || this.#wake?.(), { signal });
    this.#ticker = setInterval(() => this.#tick(), 1000);
    this.#planRenewal();
    this.#start();
  }

  disconnectedCallback() {
    this.#life?.abort();
    this.#life = null;
    this.#stream = null;
    clearInterval(this.#ticker);
    clearTimeout(this.#renewTimer);
    clearTimeout(this.#previewTimer);
  }

  attributeChangedCallback(name, before, value) {
    if (before === value) return;
    if (name === 'token') this.#takeToken(value || '');
    else if (name === 'gateway') {
      this.#gateway = (value || '').replace(/\/+$/, '');
      this.#start();
    } else if (name === 'sealed-order') this.#takeOrder(value || readClaims(this.#token).so || '');
    else if (name === 'locale') this.#previewSoon(0);
  }

  // ---- token and order ----

  #takeToken(token) {
    if (token === this.#token) return;
    this.#token = token;
    this.#planRenewal();
    this.#takeOrder(this.getAttribute('sealed-order') || readClaims(token).so || this.#sealedOrderID);
    for (const resolve of this.#waiters) resolve();
    this.#waiters.clear();
    if (this.#ui.connection.textContent === this.#t.renewing) this.#connection(this.#connected ? 'live' : this.#stream ? 'connecting' : '');
    this.#wake?.();
    this.#start();
  }

  #takeOrder(id) {
    if (id === this.#sealedOrderID) return;
    this.#sealedOrderID = id;
    this.#stream?.abort();
    this.#order = this.#unsent = this.#stream = null;
    this.#preferred = '';
    this.#forgetRequest();
    this.#ui.form.reset();
    this.#show('loading');
    this.#start();
  }

  #forgetRequest() {
    this.#request = null;
    this.#events = [];
    this.#lastSeq = this.#shown = 0;
    this.#pending.clear();
  }

  // #planRenewal asks for the next token before this one ends. A token that lives shorter than the usual lead is
  // renewed in the last third of its life, or its successor would ask again at once.
  #planRenewal() {
    clearTimeout(this.#renewTimer);
    const { exp, iat } = readClaims(this.#token);
    if (!exp || !this.isConnected) return;
    const life = iat ? (exp - iat) * 1000 : exp * 1000 - Date.now();
    const lead = Math.min(RENEW_BEFORE, life / 3);
    // A clock that runs fast makes every token look over: then only its length is of use.
    const left = exp * 1000 - lead - Date.now();
    const delay = left > 0 ? Math.min(left, life - lead) : life - lead;
    this.#renewTimer = setTimeout(() => this.#needToken(), Math.min(Math.max(1000, delay), 2 ** 31 - 1));
  }

  #needToken() {
    clearTimeout(this.#renewTimer);
    this.#renewTimer = setTimeout(() => this.#needToken(), RENEW_AGAIN);
    this.#fire('paythread-token-needed', { sealed_order: this.#sealedOrderID });
  }

  // #newToken ends when a token other than used has been set.
  async #newToken(used, signal) {
    if (this.#token !== used) return;
    this.#connection('renewing');
    const come = new Promise((resolve) => {
      this.#waiters.add(resolve);
      signal?.addEventListener('abort', resolve, { once: true });
    });
    this.#needToken();
    await come;
    signal?.throwIfAborted();
  }

  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }

  // ---- calls ----

  // #call asks the gateway and returns the answer's JSON, or throws Problem or Lost. When the token has run out it waits
  // for the next one and asks again, with the same key.
  async #call(method, path, { body, key, signal = this.#life?.signal } = {}) {
    for (;;) {
      const token = this.#token;
      const headers = { Authorization: `Bearer ${token}`, Accept: 'application/json' };
      if (body !== undefined) headers['Content-Type'] = 'application/json';
      if (method === 'POST') headers['Idempotency-Key'] = key || randomKey();
      let response, answer;
      try {
        response = await fetch(this.#gateway + path, {
          method, headers, body, ...PRIVATE,
          signal: AbortSignal.any([AbortSignal.timeout(ANSWER_WITHIN), ...(signal ? [signal] : [])]),
        });
        if (response.ok) answer = await response.json();
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new Lost();
      }
      if (response.ok) return answer;
      const problem = await refusal(response);
      if (problem.status !== 401 || problem.reason !== 'token_expired') throw problem;
      await this.#newToken(token, signal);
    }
  }

  // #start loads the order, or goes on with what is there.
  #start() {
    if (!this.isConnected || !this.#life) return;
    if (!this.#token || !this.#gateway || !this.#sealedOrderID) {
      this.#ui.loading.textContent = this.#t.unset;
      return;
    }
    if (this.#request) this.#follow();
    else if (!this.#order) this.#load();
  }

  #loading = null;

  async #load() {
    const id = this.#sealedOrderID, signal = this.#life.signal;
    if (this.#loading?.id === id && this.#loading.signal === signal) return;
    const mine = (this.#loading = { id, signal });
    this.#show('loading');
    this.#ui.loading.textContent = this.#t.loading;
    for (let failures = 0; !signal.aborted && id === this.#sealedOrderID; failures++) {
      try {
        const order = await this.#readOrder(signal);
        if (id !== this.#sealedOrderID) break;
        this.#connection('');
        if (order.payment_request) this.#showRequest(order.payment_request);
        else this.#showForm();
        break;
      } catch (error) {
        if (signal.aborted) break;
        if (error instanceof Problem) {
          const t = this.#t;
          this.#ui.loading.textContent = error.status === 404 ? t.notFound : this.#sentence(error);
          break;
        }
        this.#ui.loading.textContent = this.#t.unreachable;
        await wait(Math.max(backoff(failures), error.retryAfter || 0), signal, (wake) => (this.#wake = wake));
      }
    }
    if (this.#loading === mine) this.#loading = null;
  }

  async #readOrder(signal) {
    const order = await this.#call('GET', `/v1/sealed-orders/${encodeURIComponent(this.#sealedOrderID)}`, { signal });
    this.#order = order;
    this.#plan = dialling(order.phone, order.phone_national);
    this.#drawOrder();
    return order;
  }

  // ---- the stream ----

  // #follow streams the request's log from its first event on, and again from the last one seen whenever the
  // connection goes. It runs until another request is followed or the panel leaves the page.
  async #follow() {
    if (this.#stream && !this.#stream.signal.aborted) return;
    const control = (this.#stream = new AbortController());
    const signal = AbortSignal.any([control.signal, this.#life.signal]);
    const path = this.#gateway + requestPath(this.#request, '/events');
    let failures = 0, gapAt = 0;
    this.#connection('connecting');
    while (!signal.aborted) {
      const token = this.#token, began = Date.now();
      const one = new AbortController();
      let watchdog = 0, retryAfter = 0;
      const alive = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => one.abort(), SILENCE);
      };
      try {
        alive();
        const response = await fetch(path, {
          headers: { Authorization: `Bearer ${token}`, Accept: 'text/event-stream', 'Last-Event-ID': String(this.#lastSeq) },
          ...PRIVATE, signal: AbortSignal.any([signal, one.signal]),
        });
        if (!response.ok) throw await refusal(response);
        this.#connected = true;
        this.#connection('live');
        this.#refresh(); // what the log does not carry may have changed while nobody listened
        await readEvents(response.body, alive, (event) => {
          if (signal.aborted || one.signal.aborted) return;
          if (event.type === 'reset') {
            // The log ends at that number: what is missing stays missing, and what came after it is void.
            gapAt = this.#lastSeq = this.#shown = Number(event.id) || 0;
            this.#events = this.#events.filter((e) => e.seq <= gapAt);
            this.#refresh();
            return;
          }
          let entry;
          try {
            entry = JSON.parse(event.data);
          } catch {
            return; // not one of ours
          }
          if (!Number.isInteger(entry.seq) || entry.seq <= this.#lastSeq) return;
          // A number was left out: ask once more from the last that came. Then the log has no such number.
          if (entry.seq > this.#lastSeq + 1 && this.#lastSeq > 0 && gapAt !== this.#lastSeq) {
            gapAt = this.#lastSeq;
            one.abort();
            return;
          }
          failures = 0;
          this.#take(entry);
        });
      } catch (error) {
        if (signal.aborted) break;
        if (error instanceof Problem) {
          if (error.status === 401 && error.reason === 'token_expired') {
            await this.#newToken(token, signal).catch(() => {});
            continue;
          }
          this.#connection('');
          this.#alert(this.#sentence(error));
          if (this.#stream === control) this.#stream = null; // a new token starts it again
          return;
        }
        retryAfter = error.retryAfter || 0;
      } finally {
        clearTimeout(watchdog);
        one.abort();
        this.#connected = false;
      }
      if (signal.aborted) break;
      this.#connection('reconnecting');
      if (Date.now() - began > BACKOFF_MOST) failures = 0; // it had worked for long
      await wait(Math.max(backoff(failures++), retryAfter), signal, (wake) => (this.#wake = wake));
    }
  }

  #online() {
    this.#wake?.();
    if (this.#unsent && !this.#sending) this.#send();
  }

  // #take applies one event at once, so that the guide moves with it; the request itself follows for all the rest.
  #take(event) {
    const live = event.seq > this.#shown;
    this.#lastSeq = event.seq;
    this.#events.push(event);
    const request = this.#request;
    if (live) {
      const offset = Date.parse(event.time) - Date.now();
      // An answer's way makes the offset too small, never too large.
      if (Number.isFinite(offset)) this.#clockOffset = Math.max(this.#clockOffset ?? -Infinity, offset);
      if (event.lifecycle) request.lifecycle = event.lifecycle;
      request.reason = event.reason || '';
      if (event.milestone && (!request.milestones[event.milestone] || event.milestone === 'declined')) {
        request.milestones[event.milestone] = event.time;
      }
      const message = event.message && request.messages.find((m) => m.id === event.message.id);
      if (event.type === 'fell_back') request.fell_back_to = 'sms'; // what takes its place is in no event
      if (message) {
        message.status = event.message.status;
        message.reason = event.message.reason;
        if (message.status === 'failed') message.reason_text ||= event.text;
      }
      this.#say(event.text || '');
      this.#refresh();
      // Money on a request that had ended matters more than the form for its successor.
      if (this.#ui.form.hidden === false && !UNPAID_ENDS.includes(request.lifecycle) && !this.#unsent) this.#show('guide');
    }
    this.#drawGuide();
    this.#fire('paythread-status', {
      payment_request_id: event.payment_request_id || request.id, order: event.order || request.order, type: event.type,
      lifecycle: event.lifecycle, seq: event.seq, time: event.time,
    });
    if (live && event.type === 'superseded') this.#reload();
  }

  // #refresh reads the request again: its actions, attempts and windows are not in the events. Many calls become one.
  async #refresh() {
    if (this.#refreshing) return;
    this.#refreshing = true;
    const request = this.#request, signal = this.#life.signal;
    try {
      for (let tries = 0; tries < 5 && request === this.#request; tries++) {
        await wait(120, signal);
        const fresh = await this.#call('GET', requestPath(request), { signal });
        if (this.#request?.id !== fresh.id) return;
        if (fresh.last_event >= this.#lastSeq) {
          Object.assign(request, whole(fresh));
          this.#drawGuide();
          if (fresh.last_event >= this.#lastSeq) return;
        }
      }
    } catch {
      // The next event, the next connection or the next action reads it again.
    } finally {
      this.#refreshing = false;
    }
  }

  // #reload reads the order again, for the request that holds it now and for the channels.
  async #reload() {
    try {
      const order = await this.#readOrder(this.#life.signal);
      const holder = order.payment_request;
      if (holder && holder.id !== this.#request?.id) this.#showRequest(holder);
      return holder;
    } catch {
      return null; // what is on the screen stays
    }
  }

  // ---- the form ----

  #showForm() {
    const { phone, note, channels } = this.#ui;
    const order = this.#order, last = this.#request;
    this.#drawOrder();
    this.#ui.form.reset();
    phone.value = last?.phone_national || last?.phone || order.phone_national || order.phone || '';
    note.value = last?.note || '';
    const offered = order.channels || [];
    const wanted = last?.fell_back_to || last?.channel;
    const usable = offered.filter((c) => c.available), sound = usable.filter((c) => !c.reason);
    const chosen = usable.find((c) => c.channel === this.#preferred) || sound.find((c) => c.channel === wanted) || sound[0] || usable[0];
    channels.replaceChildren(...offered.map((c) => {
      const id = `channel-${c.channel}`;
      const why = this.#t.unavailable[c.reason] || (c.available ? '' : this.#t.unavailable.other);
      const radio = h('input', {
        type: 'radio', name: 'channel', id, value: c.channel, disabled: !c.available, checked: c === chosen,
        'aria-describedby': why ? `${id}-why` : null, on: { change: () => this.#previewSoon(0) },
      });
      return h('label', { class: 'choice', for: id }, radio, h('span', {}, this.#t.channels[c.channel] || c.channel), why && h('span', { class: c.available ? 'hint warn' : 'hint', id: `${id}-why` }, why));
    }));
    this.#ui.who.textContent = order.customer_name || '';
    this.#ui.who.parentElement.hidden = !order.customer_name;
    this.#ui.backToGuide.hidden = !last;
    this.#clearErrors();
    if (!chosen) this.#fieldError('channel', this.#t.noChannel);
    this.#lock(false);
    this.#drawPhone();
    this.#show('form');
    this.#ui.screen.replaceChildren(h('p', { class: 'hint' }, this.#t.previewWait));
    this.#previewSoon(0);
  }

  #channel() { return this.#ui.channels.querySelector('input:checked')?.value || ''; }

  #drawPhone() {
    const number = internationalForm(this.#ui.phone.value, this.#plan);
    this.#ui.phoneHint.textContent = number ? this.#t.phoneSends(number) : this.#t.phoneIn(this.#country());
  }

  #country() {
    const code = this.#order?.country || '';
    try {
      return new Intl.DisplayNames(this.#language(), { type: 'region' }).of(code);
    } catch {
      return code;
    }
  }

  #clearErrors() {
    for (const name of ['phone', 'channel', 'note']) this.#fieldError(name, '');
    this.#ui.formAlert.replaceChildren();
    this.#alert('');
    this.#phoneProblem = '';
  }

  #fieldError(name, text) {
    const error = this.#ui[`${name}Error`], field = name === 'channel' ? this.#ui.channelSet : this.#ui[name];
    error.textContent = text;
    error.hidden = !text;
    if (text) field.setAttribute('aria-invalid', 'true');
    else field.removeAttribute('aria-invalid');
  }

  // #lock keeps the fields as they were sent: the same key must carry the same words.
  #lock(locked) {
    this.#ui.fields.disabled = locked;
    this.#ui.send.setAttribute('aria-disabled', String(this.#sending));
    this.#ui.send.disabled = !this.#sending && !this.#unsent && !this.#ui.channels.querySelector('input:not(:disabled), input:checked');
    this.#ui.send.textContent = this.#sending ? this.#t.sending : this.#unsent ? this.#t.tryAgain
      : this.#order?.total ? this.#t.send(this.#money(this.#order.total)) : this.#t.sendPlain;
  }

  #previewSoon(after = PREVIEW_AFTER) {
    clearTimeout(this.#previewTimer);
    this.#previewCall?.abort();
    if (this.#ui.form.hidden || !this.#life) return;
    this.#previewTimer = setTimeout(() => this.#preview(), after);
  }

  async #preview(withPhone = true) {
    const channel = this.#channel(), phone = this.#ui.phone.value.trim();
    if (!channel || !this.#life) return;
    const control = (this.#previewCall = new AbortController());
    const signal = AbortSignal.any([control.signal, this.#life.signal]);
    const screen = this.#ui.screen;
    screen.setAttribute('aria-busy', 'true');
    try {
      const body = { channel, locale: this.getAttribute('locale') || 'en', ...(withPhone && phone ? { phone } : {}) };
      const preview = await this.#call('POST', '/v1/message-previews', { body: JSON.stringify(body), signal });
      if (withPhone) this.#phoneProblem = '';
      this.#drawPreview(preview);
    } catch (error) {
      if (signal.aborted) return;
      const problem = error instanceof Problem && fieldErrors(error).find((e) => e.name === 'phone');
      if (problem && withPhone) {
        this.#phoneProblem = problem.message;
        if (this.shadowRoot.activeElement !== this.#ui.phone) this.#fieldError('phone', problem.message);
        return this.#preview(false);
      }
      screen.replaceChildren(h('p', { class: 'hint' }, this.#t.previewNone));
    } finally {
      if (this.#previewCall === control) screen.setAttribute('aria-busy', 'false');
    }
  }

  #drawPreview(preview) {
    const screen = this.#ui.screen;
    screen.dataset.channel = preview.channel;
    screen.replaceChildren(h('div', { class: 'bubble' }, h('p', {}, preview.text), preview.button && h('p', { class: 'press' }, preview.button)));
    const t = this.#t, longer = preview.outside_gsm7 || [];
    this.#ui.previewFacts.replaceChildren(...(preview.segments ? [h('span', {}, t.previewFacts(preview.units ?? preview.text.length, preview.cost_units || preview.segments)),
      longer.length && h('span', { class: 'warn', id: 'preview-longer' }, t.previewLonger(longer))].filter(Boolean) : []));
  }

  // #send makes the payment request. Its key stays until a definite answer came, so that neither a second press nor a
  // lost answer can ask the customer twice.
  async #send() {
    if (this.#sending) return;
    if (!this.#unsent) {
      this.#clearErrors();
      const phone = this.#ui.phone.value.trim(), channel = this.#channel(), note = this.#ui.note.value.trim();
      if (!phone) this.#fieldError('phone', this.#t.phoneMissing);
      if (!channel) this.#fieldError('channel', this.#t.channelMissing);
      if (!phone || !channel) return this.#focusError();
      this.#unsent = { key: randomKey(), body: JSON.stringify({ phone, channel, locale: this.getAttribute('locale') || 'en', note }) };
    }
    const { key, body } = this.#unsent, signal = this.#life.signal, order = this.#sealedOrderID;
    this.#sending = true;
    this.#lock(true);
    this.#ui.formAlert.replaceChildren();
    this.#say(this.#t.sending);
    try {
      for (let failures = 0; ; failures++) {
        try {
          const request = await this.#call('POST', '/v1/payment-requests', { body, key, signal });
          this.#unsent = null;
          if (order === this.#sealedOrderID) this.#showRequest(request, true);
          return;
        } catch (error) {
          if (error instanceof Problem) {
            this.#unsent = null;
            this.#sending = false;
            await this.#refused(error);
            return;
          }
          if (signal.aborted) return;
          if (failures + 1 >= SEND_TRIES) {
            this.#ui.formAlert.textContent = this.#t.lost;
            return;
          }
          this.#say(this.#t.retrying);
          this.#ui.send.textContent = this.#t.retrying;
          await wait(Math.max(backoff(failures), error.retryAfter || 0), signal);
          if (signal.aborted) return;
        }
      }
    } finally {
      this.#sending = false;
      this.#lock(Boolean(this.#unsent));
    }
  }

  // #refused puts each sentence where the agent can act on it.
  async #refused(problem) {
    this.#lock(false);
    const rest = [];
    let atField = false;
    for (const { name, message } of fieldErrors(problem)) {
      if (['phone', 'channel', 'note'].includes(name)) {
        this.#fieldError(name, message);
        atField = true;
      } else rest.push(message);
    }
    if (!atField && CHANNEL_REASONS.includes(problem.reason)) {
      this.#fieldError('channel', problem.message);
      atField = true;
    }
    if (!atField || rest.length) this.#ui.formAlert.textContent = [atField ? '' : this.#sentence(problem), ...rest].filter(Boolean).join(' ');
    this.#focusError();
    if (problem.status !== 409) return;
    const shown = this.#request?.id;
    const holder = await this.#reload();
    if (holder && holder.id !== shown) this.#alert(this.#t.held, 'info');
  }

  #focusError() {
    const { phone, phoneError, channelError, note, noteError, channels } = this.#ui;
    const field = !phoneError.hidden ? phone : !channelError.hidden ? channels.querySelector('input:not(:disabled)') : !noteError.hidden ? note : null;
    field?.focus();
  }

  // ---- the guide ----

  #showRequest(request, fresh = false) {
    this.#stream?.abort();
    this.#stream = null;
    this.#forgetRequest();
    this.#request = whole(request);
    this.#shown = fresh ? 0 : request.last_event || 0;
    this.#preferred = '';
    if (fresh) {
      const offset = Date.parse(request.created_at) - Date.now();
      if (Number.isFinite(offset)) this.#clockOffset = offset;
    }
    this.#ui.formAlert.replaceChildren();
    this.#ui.actionAlert.replaceChildren();
    this.#closeConfirm(false);
    this.#alert('');
    this.#show('guide');
    this.#drawGuide();
    if (fresh) this.#ui.stateTitle.focus();
    this.#follow();
  }

  #drawGuide() {
    const request = this.#request, ui = this.#ui, t = this.#t;
    if (!request) return;
    const [tone, key] = condition(request);
    const [title, text] = t.states[key] || [request.lifecycle, ''];
    const attempt = request.attempts.at(-1), failed = failedMessage(request);
    const said = key === 'undelivered' ? failed.reason_text || t.failedMessage
      : key === 'fell_back' && !replaced(request) ? t.notYet
      : key === 'queued' ? newestMessages(request).at(-1)?.reason_text || text
      : ['declined', 'retry'].includes(key) ? [attempt?.text, t.states[key][1]].filter(Boolean).join(' ')
      : key === 'paid' ? t.received(this.#money(isZero(request.totals?.captured) ? request.total : request.totals.captured)) : text;
    ui.state.dataset.tone = tone;
    ui.state.dataset.lifecycle = request.lifecycle;
    ui.state.dataset.key = key;
    ui.stateTitle.textContent = title;
    ui.stateText.replaceChildren(...[said, request.late && t.late, request.superseded && t.superseded].filter(Boolean).flatMap((line) => [line, ' ']));
    ui.stateText.hidden = !ui.stateText.textContent;
    ui.whoSent.textContent = t.to([this.#order?.customer_name, request.phone_national || request.phone].filter(Boolean).join(', '), [...new Set([request.fell_back_to, request.channel])].filter(Boolean).map((c) => t.channels[c] || c).join(t.insteadOf));
    ui.steps.replaceChildren(...this.#steps(request));
    this.#drawTotals(request);
    ui.log.replaceChildren(...this.#events.map((e) => h('li', {}, this.#time(e.time), h('span', {}, e.text || e.type))));
    ui.logTitle.textContent = t.log(this.#events.length);
    ui.logBox.hidden = this.#events.length === 0;
    this.#drawActions(request, key, failed);
    this.#tick();
  }

  #steps(request) {
    const t = this.#t, milestones = request.milestones;
    const ended = UNPAID_ENDS.includes(request.lifecycle) && !milestones.paid;
    const last = STEPS.reduce((at, step, i) => (milestones[step] ? i : at), -1);
    const failed = failedMessage(request);
    const failedAt = failed ? STEPS.indexOf(failed.purpose === 'receipt' ? (milestones.receipt_sent ? 'receipt_delivered' : 'receipt_sent') : milestones.sent ? 'delivered' : 'sent') : -1;
    const live = !ENDS.includes(request.lifecycle);
    // An SMS is never reported as read: nobody waits for it.
    const unread = STEPS.indexOf('read'), next = last + 1 === unread && (request.fell_back_to || request.channel) === 'sms' ? unread + 1 : last + 1;
    const rows = STEPS.map((step, i) => {
      const at = milestones[step];
      let state = at ? 'done' : i === failedAt ? 'failed' : i < next ? 'silent' : i === next && live && failedAt < 0 ? 'current' : 'todo';
      let name = t.steps[step];
      if (step === 'paid' && request.lifecycle === 'authorized') name = t.authorizedStep;
      if (step === 'paid' && !at && request.lifecycle === 'in_review') name = t.reviewStep;
      // The money is there: what came before it has happened, whether it was reported or not.
      if (ended && state !== 'done' && state !== 'silent' && state !== 'failed') return null;
      return this.#step(step, state, name, at, this.#more(step, request));
    });
    if (ENDS.includes(request.lifecycle)) {
      const end = this.#events.findLast((e) => e.type === request.lifecycle);
      const operation = request.operations.findLast((o) => o.state === 'succeeded');
      const at = end?.time || (ended ? '' : operation?.settled_at);
      rows.push(this.#step(request.lifecycle, request.lifecycle === 'failed' ? 'failed' : 'ended', t.ends[request.lifecycle], at));
    }
    return rows.filter(Boolean);
  }

  #step(id, state, name, at, more) {
    const when = at ? this.#time(at) : h('span', { class: 'when' }, ['silent', 'failed'].includes(state) ? this.#t.stepStates[state] : '');
    return h('li', { class: 'step', 'data-step': id, 'data-state': state, 'aria-current': state === 'current' ? 'step' : null },
      h('span', { class: 'name' }, name, h('span', { class: 'out' }, `, ${this.#t.stepStates[state]}`)), ' ', when, more && h('div', { class: 'more' }, more));
  }

  // #more is what stands below a step: the tries to pay, or the messages where one was not enough.
  #more(step, request) {
    const purpose = { sent: 'payment', receipt_sent: 'receipt' }[step], t = this.#t;
    const messages = request.messages.filter((m) => m.purpose === purpose);
    if (messages.length > 1) return h('ul', { class: 'tries', 'aria-label': t.messages }, messages.map((m) => this.#message(m)));
    if (step !== 'checkout_started' || !request.attempts.length) return null;
    return h('ul', { class: 'tries', 'aria-label': t.attempts }, request.attempts.map((a) => {
      const tone = ['declined', 'not_taken', 'not_found'].includes(a.state) ? 'bad' : ['authorized', 'captured'].includes(a.state) ? 'good' : '';
      return this.#try({ 'data-attempt': a.number, 'data-tone': tone, 'data-state': a.state }, t.attempt(a.number), t.attemptStates[a.state] || a.state,
        a.settled_at || a.started_at, a.text, a.card && t.card(brand(a.card.brand), a.card.last4));
    }));
  }

  #message(m) {
    const t = this.#t, failed = m.status === 'failed', needless = m.reason === 'not_needed';
    const at = failed ? this.#events.findLast((e) => e.message?.id === m.id && e.type === 'message_failed')?.time : m.read_at || m.delivered_at || m.sent_at || m.queued_at;
    const tone = needless ? '' : failed ? 'bad' : ['delivered', 'read'].includes(m.status) ? 'good' : '';
    return this.#try({ 'data-message': m.channel, 'data-tone': tone, 'data-state': m.status }, t.channels[m.channel] || m.channel,
      needless ? t.needless : t.messageStates[m.status] || m.status, at, !needless && m.reason_text);
  }

  #try(props, name, state, at, ...lines) {
    return h('li', props, h('span', {}, `${name}: `, h('b', {}, state)), ' ', this.#time(at), lines.filter(Boolean).map((line) => [' ', h('span', {}, line)]).flat());
  }

  #drawTotals(request) {
    const t = this.#t, box = this.#ui.totals;
    const rows = request.operations.map((o) => [`${t.operations[o.kind] || o.kind}, ${t.operationStates[o.state] || o.state}`, o.amount]);
    if (rows.length) {
      for (const name of ['captured', 'reversed', 'refunded']) if (!isZero(request.totals?.[name])) rows.push([t.totals[name], request.totals[name]]);
    }
    box.hidden = !rows.length;
    box.replaceChildren(h('tbody', {}, rows.map(([name, amount]) => h('tr', {}, h('th', { scope: 'row' }, name), h('td', {}, this.#money(amount))))));
  }

  // ---- actions ----

  #drawActions(request, key, failed) {
    const ui = this.#ui, t = this.#t, may = (action) => request.actions.includes(action) && !request.superseded;
    for (const action of ['resend', 'extend', 'cancel']) ui[action].disabled = !may(action);
    ui.resend.textContent = this.#resends(request) === 'receipt' ? t.resendReceipt : t.resend;
    const replaceable = REPLACEABLE.includes(request.lifecycle) && !request.superseded;
    ui.newRequest.hidden = !replaceable;
    ui.actions.hidden = !ui.confirm.hidden || !['resend', 'extend', 'cancel'].some(may) && (replaceable || ENDS.includes(request.lifecycle));
    // Once money has come, time and cancelling have no meaning; a stray grey button would only raise questions.
    const money = ['authorized', 'paid', 'partially_refunded', 'in_review'].includes(request.lifecycle);
    for (const action of ['extend', 'cancel']) ui[action].hidden = money && !may(action);
    if (!ui.confirm.hidden && ui.confirm.dataset.kind && !may('cancel')) this.#closeConfirm();

    // A channel on which this request has failed already is no way out.
    const tried = request.messages.filter((m) => m.status === 'failed').map((m) => m.channel);
    const other = failed && (this.#order?.channels || []).find((c) => c.available && !tried.includes(c.channel))?.channel;
    const offer = Boolean(other) && failed.purpose === 'payment' && (may('cancel') || replaceable);
    ui.other.hidden = !offer;
    ui.other.dataset.channel = other || '';
    if (offer) ui.other.textContent = t.other(t.channels[other] || other);
    const receiptFailed = failed?.purpose === 'receipt';
    ui.messageAlert.hidden = !receiptFailed;
    ui.messageAlert.textContent = receiptFailed ? `${t.receiptMessage}: ${failed.reason_text || t.failedMessage}` : '';
  }

  #resends(request) { return request.milestones.paid || ['paid', 'authorized', 'partially_refunded', 'refunded'].includes(request.lifecycle) ? 'receipt' : 'payment'; }

  #askCancel(channel = '') {
    const ui = this.#ui, t = this.#t;
    ui.confirm.dataset.kind = channel ? 'other' : 'cancel';
    ui.confirm.dataset.channel = channel;
    ui.confirmTitle.textContent = channel ? t.otherAsk(t.channels[channel] || channel) : t.cancelAsk;
    ui.confirmYes.textContent = channel ? t.otherYes : t.cancelYes;
    ui.reason.value = '';
    ui.confirm.hidden = false;
    ui.actions.hidden = true;
    ui.confirmNo.focus();
  }

  #closeConfirm(focus = true) {
    const ui = this.#ui;
    if (ui.confirm.hidden) return;
    const back = ui.confirm.dataset.kind === 'other' ? ui.other : ui.cancel;
    const held = ui.confirm.contains(this.shadowRoot.activeElement);
    ui.confirm.hidden = true;
    ui.confirm.dataset.kind = '';
    if (this.#request) this.#drawGuide();
    if (focus && held) (back.hidden || back.disabled ? ui.stateTitle : back).focus();
  }

  // #act asks for one action. Its key stays until an answer came: pressing again after a lost answer is the same press.
  async #act(action, body = {}) {
    if (this.#acting) return false;
    const request = this.#request, ui = this.#ui;
    const words = JSON.stringify(body);
    let pending = this.#pending.get(action);
    if (pending?.words !== words) this.#pending.set(action, (pending = { key: randomKey(), words }));
    this.#acting = true;
    ui.actionAlert.replaceChildren();
    const buttons = [ui.resend, ui.extend, ui.cancel, ui.confirmYes];
    for (const b of buttons) b.setAttribute('aria-disabled', 'true');
    try {
      const fresh = await this.#call('POST', requestPath(request, `/${action}`), { body: words, key: pending.key });
      this.#pending.delete(action);
      this.#merge(fresh);
      this.#say(this.#t.done[action]);
      return true;
    } catch (error) {
      if (error instanceof Problem) {
        this.#pending.delete(action);
        ui.actionAlert.textContent = this.#sentence(error);
        if (error.status === 409) this.#refresh();
      } else if (this.#life && !this.#life.signal.aborted) {
        ui.actionAlert.textContent = this.#t.lostAction;
      }
      return false;
    } finally {
      this.#acting = false;
      for (const b of buttons) b.removeAttribute('aria-disabled');
    }
  }

  // #merge takes an answer unless an event newer than it has already been shown.
  #merge(fresh) {
    if (this.#request?.id !== fresh.id) return;
    if (fresh.last_event >= this.#lastSeq) Object.assign(this.#request, whole(fresh));
    else this.#refresh();
    this.#drawGuide();
  }

  async #confirmed() {
    const ui = this.#ui, channel = ui.confirm.dataset.channel, other = ui.confirm.dataset.kind === 'other';
    const reason = ui.reason.value.trim();
    const done = await this.#act('cancel', reason ? { reason } : {});
    this.#closeConfirm();
    if (done && other) this.#again(channel);
    else if (done) ui.stateTitle.focus();
  }

  // #again shows the form for a request that takes the order over. The old one is followed until then: money may still come.
  async #again(channel = '') {
    this.#preferred = channel;
    const holder = await this.#reload();
    if (holder && holder.id === this.#request?.id && !REPLACEABLE.includes(holder.lifecycle)) {
      this.#merge(holder);
      return;
    }
    this.#showForm();
    this.#ui.formTitle.focus();
  }

  // ---- drawing ----

  #show(view) {
    const ui = this.#ui;
    for (const name of ['loading', 'form', 'guide']) ui[name].hidden = name !== view;
    ui.header.hidden = ui.orderBox.hidden = view === 'loading';
    ui.orderBox.open = view === 'form';
    ui.logBox.hidden = view !== 'guide' || this.#events.length === 0;
    ui.connection.hidden = view !== 'guide' && ui.connection.dataset.state !== 'waiting';
  }

  #drawOrder() {
    const ui = this.#ui, t = this.#t, order = this.#order;
    ui.title.textContent = t.order(order.order);
    ui.total.textContent = this.#money(order.total);
    ui.merchant.textContent = order.merchant?.name || '';
    ui.sandbox.hidden = order.environment !== 'sandbox';
    const rows = [['subtotal', order.subtotal], ['shipping', order.shipping, true], ['discount', order.discount, true, '−'], ['tax', order.tax], ['total', order.total]];
    ui.items.replaceChildren(
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, t.item), h('th', { scope: 'col' }, t.quantity), h('th', { scope: 'col' }, t.amount))),
      h('tbody', {}, (order.line_items || []).map((item) => h('tr', {}, h('th', { scope: 'row' }, item.name), h('td', {}, String(item.quantity)), h('td', {}, this.#money(item.total))))),
      h('tfoot', {}, rows.filter(([, amount, optional]) => amount && !(optional && isZero(amount))).map(([name, amount, , sign]) =>
        h('tr', { 'data-row': name }, h('th', { scope: 'row', colspan: 2 }, t[name]), h('td', {}, (sign || '') + this.#money(amount))))),
    );
    this.#lock(Boolean(this.#unsent));
  }

  #connection(state) {
    const el = this.#ui.connection, t = this.#t;
    const words = { live: t.connected, connecting: t.connecting, reconnecting: t.reconnecting, renewing: t.renewing }[state] || '';
    el.dataset.state = state === 'live' ? 'live' : words ? 'waiting' : '';
    el.hidden = !words || (state === 'live' && this.#ui.guide.hidden);
    if (el.textContent !== words) el.textContent = words;
  }

  #sentence(problem) { return problem.status === 401 ? this.#t.sessionBad : problem.message || this.#t.failed; }

  #alert(text, tone = 'bad') {
    this.#ui.alert.dataset.tone = tone;
    this.#ui.alert.textContent = text;
  }

  // #say tells those who do not see the screen.
  #say(text) { this.#ui.live.textContent = text; }

  #tick() {
    const request = this.#request, ui = this.#ui, t = this.#t;
    const until = request?.lifecycle === 'open' ? request.pay_by || request.open_by : '';
    ui.left.hidden = !until;
    if (!until) return;
    const left = Date.parse(until) - Date.now() - (Math.abs(this.#clockOffset || 0) > 2000 ? this.#clockOffset : 0);
    if (left <= 0) {
      ui.leftName.textContent = t.timeUp;
      ui.leftTime.textContent = '';
    } else {
      ui.leftName.textContent = request.pay_by ? t.payFor : t.openFor;
      ui.leftTime.textContent = duration(left);
    }
  }

  #language() { return this.lang || document.documentElement.lang || navigator.language || 'en'; }

  #money(amount) {
    if (!amount) return '';
    try {
      // The string goes in as it is: a number would round what a double cannot hold.
      return new Intl.NumberFormat(this.#language(), { style: 'currency', currency: amount.currency, currencyDisplay: 'narrowSymbol' }).format(amount.value);
    } catch {
      return `${amount.currency} ${amount.value}`;
    }
  }

  #time(iso) {
    const at = new Date(iso);
    if (!iso || Number.isNaN(at.getTime())) return h('span', { class: 'when' });
    const today = at.toDateString() === new Date().toDateString();
    const words = at.toLocaleString(this.#language(), { hour: '2-digit', minute: '2-digit', hourCycle: 'h23', ...(today ? { second: '2-digit' } : { day: 'numeric', month: 'short' }) });
    return h('time', { datetime: iso }, words);
  }

  #build(root) {
    const ui = this.#ui, t = this.#t;
    const button = (id, text, onClick, kind) => h('button', { type: 'button', id, class: kind, on: { click: (e) => e.currentTarget.getAttribute('aria-disabled') === 'true' || onClick() } }, text);
    const error = (id) => h('p', { class: 'error', id: `${id}-error`, hidden: true });

    ui.title = h('h2', { id: 'title' });
    ui.total = h('span', { class: 'total' });
    ui.merchant = h('p');
    ui.connection = h('p', { class: 'link', id: 'connection', role: 'status', hidden: true });
    ui.header = h('header', { hidden: true }, ui.title, ui.total, ui.merchant, ui.connection);
    ui.sandbox = h('p', { class: 'sandbox', id: 'sandbox', hidden: true }, t.sandbox);
    ui.alert = h('div', { class: 'alert', id: 'alert', role: 'alert' });
    ui.loading = h('p', { class: 'loading', role: 'status' }, t.loading);
    ui.live = h('p', { class: 'out', id: 'live', role: 'status', 'aria-live': 'polite' });

    ui.items = h('table', { id: 'items' });
    ui.orderBox = h('details', { id: 'order', hidden: true }, h('summary', {}, t.items), h('div', { class: 'order' }, ui.items, h('p', {}, t.fixed)));

    ui.who = h('span');
    ui.phone = h('input', {
      type: 'tel', id: 'phone', name: 'phone', autocomplete: 'off', maxlength: 32, required: true, 'aria-describedby': 'phone-hint phone-error',
      on: {
        input: () => { this.#phoneProblem = ''; this.#drawPhone(); this.#fieldError('phone', ''); this.#previewSoon(); },
        blur: () => this.#phoneProblem && this.#fieldError('phone', this.#phoneProblem),
      },
    });
    ui.phoneHint = h('p', { class: 'hint', id: 'phone-hint' });
    ui.phoneError = error('phone');
    ui.channels = h('div', { class: 'choices' });
    ui.channelError = error('channel');
    ui.channelSet = h('fieldset', { class: 'field', id: 'channel', 'aria-describedby': 'channel-error' }, h('legend', {}, t.channel), ui.channels, ui.channelError);
    ui.note = h('textarea', { id: 'note', name: 'note', maxlength: 500, rows: 1, 'aria-describedby': 'note-hint note-error' });
    ui.noteError = error('note');
    ui.screen = h('div', { class: 'screen', id: 'preview', 'aria-live': 'off' });
    ui.previewFacts = h('p', { class: 'hint facts', id: 'preview-facts' });
    ui.formTitle = h('h3', { tabindex: -1 }, t.ask);
    ui.formAlert = h('div', { class: 'alert', id: 'form-alert', role: 'alert' });
    ui.send = h('button', { type: 'submit', id: 'send', class: 'main' }, t.sendPlain);
    ui.backToGuide = button('back', t.back, () => this.#show('guide'));
    ui.fields = h('fieldset', { class: 'fields' },
      h('p', { class: 'who' }, `${t.customer}: `, ui.who),
      h('div', { class: 'field' }, h('label', { for: 'phone' }, t.phone), ui.phone, ui.phoneHint, ui.phoneError),
      ui.channelSet,
      h('div', { class: 'field' }, h('label', { for: 'note' }, t.note, ' ', h('span', { class: 'optional' }, `(${t.optional})`)), ui.note, h('p', { class: 'hint', id: 'note-hint' }, t.noteHint), ui.noteError));
    ui.form = h('form', { id: 'form', novalidate: true, hidden: true, 'aria-labelledby': 'form-title', on: { submit: (e) => { e.preventDefault(); this.#send(); } } },
      ui.formTitle, ui.fields,
      h('figure', {}, h('figcaption', {}, t.preview), ui.screen, ui.previewFacts),
      h('div', { class: 'foot' }, ui.formAlert, ui.send, ui.backToGuide));
    ui.formTitle.id = 'form-title';

    ui.stateTitle = h('h3', { id: 'state-title', tabindex: -1 });
    ui.stateText = h('p', { id: 'state-text' });
    ui.leftName = h('span');
    ui.leftTime = h('b');
    ui.left = h('p', { class: 'left', id: 'left', role: 'timer', 'aria-live': 'off' }, ui.leftName, ui.leftTime);
    ui.other = button('other-channel', '', () => this.#request && (REPLACEABLE.includes(this.#request.lifecycle) ? this.#again(ui.other.dataset.channel) : this.#askCancel(ui.other.dataset.channel)));
    ui.state = h('div', { class: 'state', id: 'state' }, ui.stateTitle, ui.stateText, ui.left);
    ui.whoSent = h('p', { class: 'who', id: 'who' });
    ui.steps = h('ol', { class: 'steps', id: 'steps', 'aria-label': t.guide });
    ui.totals = h('table', { id: 'totals', hidden: true });
    ui.messageAlert = h('div', { class: 'alert', id: 'message-alert', hidden: true });
    ui.actionAlert = h('div', { class: 'alert', id: 'action-alert', role: 'alert' });
    ui.resend = button('resend', t.resend, () => this.#act('resend', { message: this.#resends(this.#request) }));
    ui.extend = button('extend', t.extend, () => this.#act('extend'));
    ui.cancel = button('cancel', t.cancel, () => this.#askCancel(), 'bad wide');
    ui.newRequest = button('new-request', t.newRequest, () => this.#again(), 'main');
    ui.confirmTitle = h('h3', { id: 'confirm-title' });
    ui.reason = h('input', { type: 'text', id: 'reason', maxlength: 200, autocomplete: 'off' });
    ui.confirmYes = button('confirm-yes', t.cancelYes, () => this.#confirmed(), 'bad');
    ui.confirmNo = button('confirm-no', t.cancelNo, () => this.#closeConfirm());
    ui.confirm = h('div', { class: 'confirm', id: 'confirm', role: 'group', 'aria-labelledby': 'confirm-title', hidden: true, on: { keydown: (e) => { if (e.key === 'Escape') { e.stopPropagation(); this.#closeConfirm(); } } } },
      ui.confirmTitle, h('p', {}, t.cancelHint),
      h('div', { class: 'field' }, h('label', { for: 'reason' }, t.cancelReason, ' ', h('span', { class: 'optional' }, `(${t.optional})`)), ui.reason),
      h('div', { class: 'actions' }, ui.confirmNo, ui.confirmYes));
    ui.actions = h('div', { class: 'actions', role: 'group', 'aria-label': t.actions }, ui.resend, ui.extend, ui.cancel);
    ui.guide = h('section', { id: 'guide', hidden: true, 'aria-label': t.guide },
      ui.state, ui.other, ui.messageAlert, ui.whoSent, ui.steps, ui.totals, ui.confirm, ui.actionAlert, ui.actions, ui.newRequest);
    ui.log = h('ol', { class: 'log' });
    ui.logTitle = h('summary');
    ui.logBox = h('details', { id: 'log', hidden: true }, ui.logTitle, ui.log);

    root.append(h('main', { 'aria-label': t.panel, role: 'region' }, ui.header, ui.sandbox, ui.live, ui.loading, ui.alert, ui.orderBox, ui.form, ui.guide, ui.logBox));
  }
}

// whole fills in what an answer leaves out as empty, so that laying it over an older one clears that.
function whole(request) {
  const full = { reason: '', fell_back_to: '', late: false, superseded: false, pay_by: '', ...request };
  full.milestones ??= {};
  for (const list of ['messages', 'attempts', 'operations', 'actions']) full[list] ??= [];
  return full;
}

// fieldErrors lists a problem's errors by the last part of the field's name: "body.phone" and "phone" are the same field.
function fieldErrors(problem) {
  return problem.errors.map((e) => ({ name: String(e.field || e.location || '').split('.').pop(), message: (e.message || problem.message).replace(/^./, (c) => c.toUpperCase()) }));
}

// condition says in one word where a request stands, with the tone to say it in.
function condition(request) {
  const { lifecycle, reason, milestones } = request;
  const attempt = request.attempts.at(-1);
  switch (lifecycle) {
    case 'open': {
      if (failedMessage(request)?.purpose === 'payment' && !milestones.opened) return ['bad', 'undelivered'];
      if (again(request) && !milestones.opened) return ['warn', again(request)];
      if (attempt?.state === 'declined') return ['warn', 'declined'];
      if (['not_taken', 'not_found', 'reversed'].includes(attempt?.state)) return ['warn', 'retry'];
      const reached = STEPS.slice(0, 5).findLast((step) => milestones[step]);
      return ['info', reached || 'queued'];
    }
    case 'processing': return ['info', ['authenticating', 'unsettled', 'reversing'].includes(attempt?.state) ? attempt.state : 'processing'];
    case 'paid': return ['good', 'paid'];
    case 'authorized': return ['good', 'authorized'];
    case 'in_review': return ['warn', 'in_review'];
    case 'failed': return ['bad', 'failed'];
    case 'expired': return ['warn', ['not_opened', 'not_paid'].includes(reason) ? reason : 'expired'];
    case 'cancelled': return ['warn', reason === 'already_paid' ? reason : 'cancelled'];
    default: return ['info', lifecycle];
  }
}

// newestMessages are the messages of the current purpose, without those that were called off because another arrived.
function newestMessages(request) {
  const purpose = request.milestones.paid ? 'receipt' : 'payment';
  return request.messages.filter((m) => m.purpose === purpose && m.reason !== 'not_needed');
}

// failedMessage returns the newest message of the current purpose if it failed. An older failure that was followed by
// another try is history, and so is one in whose place an SMS is about to go.
function failedMessage(request) {
  const newest = newestMessages(request).at(-1);
  return newest?.status === 'failed' && (request.fell_back_to || newest.channel) === newest.channel ? newest : undefined;
}

// replaced returns the message in whose place the newest one goes, if that one failed.
function replaced(request) {
  const messages = newestMessages(request), newest = messages.at(-1);
  const before = newest?.status === 'failed' ? newest : messages.find((m) => m.id === newest?.follows);
  return before?.status === 'failed' ? before : undefined;
}

// again says how a message is on its way that goes in another's place; nothing once it is on the phone's side.
function again(request) {
  const newest = newestMessages(request).at(-1);
  if (newest?.status === 'failed') return request.fell_back_to ? 'fell_back' : '';
  if (!newest?.follows || !['queued', 'sending', 'accepted'].includes(newest.status)) return '';
  return request.messages.find((m) => m.id === newest.follows)?.channel === newest.channel ? 'resending' : 'fell_back';
}

function brand(name) {
  return { visa: 'Visa', mastercard: 'Mastercard', amex: 'American Express', maestro: 'Maestro' }[name] || name;
}

function duration(ms) {
  const seconds = Math.ceil(ms / 1000), two = (n) => String(n).padStart(2, '0');
  const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
  return hours ? `${hours} h ${two(minutes)} min` : `${minutes}:${two(seconds % 60)}`;
}

customElements.define('paythread-panel', PaythreadPanel);
