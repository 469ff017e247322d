"use strict";

// One customer's phone: the list of chats, and one open chat. All state is the
// server's; this script asks for it again whenever the server says it changed.

const number = document.body.dataset.number;
const api = "/phones/" + encodeURIComponent(number) + "/";
const $ = (id) => document.getElementById(id);

let state = JSON.parse($("state").textContent);
let open = null; // {channel, number} of the chat on the screen
let drawn = new Map(); // message id to its element, so that the log only grows
let typingTimer = 0;

const apps = { whatsapp: "WhatsApp", sms: "Messages" };
const keyOf = (chat) => chat.channel + chat.number;
const other = (m) => (m.direction === "received" ? m.from : m.to);
const inChat = (m, chat) => m.channel === chat.channel && other(m) === chat.number;
const unread = (chat) => state.messages.filter((m) => inChat(m, chat) && m.direction === "received" && m.status !== "read").length;
const time = (at) => new Date(at).toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
const day = (at) => new Date(at).toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });

function make(tag, className, text) {
  const el = document.createElement(tag);
  if (className) el.className = className;
  if (text !== undefined) el.textContent = text;
  return el;
}

async function call(action, body) {
  const res = await fetch(api + action, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (res.ok) return;
  const problem = await res.json().catch(() => ({}));
  throw new Error(problem.detail || "That did not work (" + res.status + ").");
}

// attempt runs an action and shows the person why it failed.
async function attempt(action) {
  $("trouble").hidden = true;
  try {
    await action();
    return true;
  } catch (err) {
    $("trouble").textContent = sentence(err.message);
    $("trouble").hidden = false;
    return false;
  }
}

function sentence(text) {
  text = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(text) ? text : text + ".";
}

let asking = false;
let again = false;

// refresh asks for the phone's state; a change meanwhile makes it ask once more.
async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    do {
      again = false;
      const res = await fetch(api + "messages");
      if (res.ok) {
        state = await res.json();
        draw();
      }
    } while (again);
  } catch {
    // The stream connects again by itself and then says that there is a change.
  } finally {
    asking = false;
  }
}

function draw() {
  $("off").checked = state.unreachable;
  $("signal").textContent = state.unreachable ? "Off" : "5G";
  $("clock").textContent = new Date().toLocaleTimeString([], { hour: "numeric", minute: "2-digit", hourCycle: "h23" });
  if (!open) openFromAddress();
  drawThreads();
  if (open) drawThread();
}

// openFromAddress opens the chat that the address names: ?channel=, and &with=
// when several businesses share it.
function openFromAddress() {
  const wanted = new URLSearchParams(location.search);
  const channel = wanted.get("channel");
  if (!channel) return;
  const chats = chatsInOrder().filter((c) => c.channel === channel);
  const chat = chats.find((c) => c.number === wanted.get("with")) || chats[0];
  if (chat) show(chat);
}

function lastOf(chat) {
  return state.messages.findLast((m) => inChat(m, chat));
}

// chatsInOrder puts the chat with the newest message first, as phones do.
function chatsInOrder() {
  const at = (chat) => (lastOf(chat) ? Date.parse(lastOf(chat).at) : 0);
  return [...state.contacts].sort((a, b) => at(b) - at(a));
}

function drawThreads() {
  const list = $("threads");
  const focused = document.activeElement && document.activeElement.dataset.key;
  const items = chatsInOrder().map((chat) => {
    const last = lastOf(chat);
    const count = unread(chat);
    const button = make("button", count ? "unread" : "");
    button.type = "button";
    button.dataset.key = keyOf(chat);
    const avatar = make("span", "avatar " + chat.channel, initial(chat));
    avatar.setAttribute("aria-hidden", "true");
    const preview = !last ? "No messages yet" : (last.direction === "sent" ? "You: " : "") + last.text.replace(/\s+/g, " ");
    const top = make("span", "row");
    top.append(make("span", "name", chat.name), make("span", "when", last ? time(last.at) : ""));
    const bottom = make("span", "row");
    bottom.append(make("span", "last", apps[chat.channel] + " · " + (chat.typing ? "typing…" : preview)));
    if (count) {
      const badge = make("span", "badge", String(count));
      badge.setAttribute("aria-label", count + " unread");
      badge.setAttribute("role", "img");
      bottom.append(badge);
    }
    button.append(avatar, top, bottom);
    button.addEventListener("click", () => {
      show(chat);
      history.pushState(null, "", "?channel=" + chat.channel + "&with=" + encodeURIComponent(chat.number));
      $("thread-name").focus();
    });
    const item = make("li");
    item.append(button);
    return item;
  });
  // What has not changed stays: a button that is replaced under a pressing finger is not pressed.
  if (items.length === list.childElementCount && items.every((item, i) => item.isEqualNode(list.children[i]))) return;
  list.replaceChildren(...items);
  if (focused && !open) {
    const back = list.querySelector('[data-key="' + CSS.escape(focused) + '"]');
    if (back) back.focus();
  }
}

function initial(chat) {
  const letter = chat.name.match(/\p{L}/u);
  return letter ? letter[0].toUpperCase() : "#";
}

function show(chat) {
  open = { channel: chat.channel, number: chat.number };
  drawn.clear();
  $("log").replaceChildren();
  $("home").hidden = true;
  $("thread").hidden = false;
  $("thread").className = chat.channel;
  $("avatar").className = "avatar " + chat.channel;
  $("avatar").textContent = initial(chat);
  $("thread-name").textContent = chat.name;
  $("trouble").hidden = true;
  atEnd = true;
  drawThread();
}

function goHome() {
  open = null;
  $("thread").hidden = true;
  $("home").hidden = false;
  drawThreads();
}

function drawThread() {
  const chat = state.contacts.find((c) => keyOf(c) === keyOf(open));
  if (!chat) return;
  $("thread-about").textContent = chat.typing ? "typing…" : apps[chat.channel] + (chat.name === chat.number ? "" : " · " + chat.number);
  $("block").textContent = chat.blocked ? "Unblock" : "Block";
  $("block").setAttribute("aria-pressed", String(chat.blocked));
  const elsewhere = state.contacts.filter((c) => keyOf(c) !== keyOf(open)).reduce((sum, c) => sum + unread(c), 0);
  $("elsewhere").hidden = !elsewhere;
  $("elsewhere").textContent = elsewhere;
  $("back").setAttribute("aria-label", elsewhere ? "Back to chats, " + elsewhere + " unread" : "Back to chats");

  const log = $("log");
  let before = null;
  for (const m of state.messages) {
    if (!inChat(m, open)) continue;
    const known = drawn.get(m.id);
    if (known) {
      drawTicks(known, m);
    } else {
      if (!before || day(before.at) !== day(m.at)) log.append(make("p", "day", day(m.at)));
      const el = drawMessage(m, !before || before.direction !== m.direction);
      drawn.set(m.id, el);
      log.append(el);
    }
    before = m;
  }
  stay();
  markRead();
  clearTimeout(typingTimer);
  if (chat.typing) typingTimer = setTimeout(refresh, 5000);
}

// A log that shows its end goes on showing it, when messages come and when the
// room for it changes. Scrolling up to read leaves it where it is.
let atEnd = true;
function stay() {
  if (atEnd) $("log").scrollTop = $("log").scrollHeight;
}
$("log").addEventListener("scroll", () => {
  const log = $("log");
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
});
new ResizeObserver(stay).observe($("log"));

function drawMessage(m, turn) {
  const el = make("div", "message " + m.direction + (turn ? " turn" : ""));
  const bubble = make("div", "bubble");
  bubble.append(make("span", "hidden", m.direction === "sent" ? "You: " : ""), withLinks(m.text));
  const meta = make("div", "meta");
  const at = make("time", "", time(m.at));
  at.dateTime = m.at;
  meta.append(at);
  if (m.direction === "sent") meta.append(make("span", "ticks"));
  bubble.append(meta);
  el.append(bubble);
  if (m.buttons.length) {
    el.classList.add("with-buttons");
    bubble.classList.add("with-buttons");
    const buttons = make("div", "buttons");
    for (const b of m.buttons) buttons.append(drawButton(m, b));
    el.append(buttons);
  }
  drawTicks(el, m);
  return el;
}

function drawButton(m, b) {
  if (b.url) {
    const link = make("a", "");
    link.href = b.url;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    const arrow = make("span", "", "↗");
    arrow.setAttribute("aria-hidden", "true");
    link.append(arrow, make("span", "", b.title));
    return link;
  }
  const button = make("button", "", b.title);
  button.type = "button";
  button.addEventListener("click", () => attempt(() => call("messages", { channel: m.channel, button: b.id, messageId: m.id })));
  return button;
}

const tickWords = { sent: "Sent", delivered: "Delivered", read: "Read" };

function drawTicks(el, m) {
  const ticks = el.querySelector(".ticks");
  if (!ticks || ticks.dataset.status === m.status) return;
  ticks.dataset.status = m.status;
  ticks.textContent = m.status === "sent" ? "✓" : "✓✓";
  ticks.classList.toggle("read", m.status === "read");
  ticks.setAttribute("role", "img");
  ticks.setAttribute("aria-label", tickWords[m.status] || m.status);
}

// withLinks makes the web addresses of a text clickable. Punctuation that ends
// the sentence stays outside.
function withLinks(text) {
  const span = make("span", "text");
  let from = 0;
  for (const found of text.matchAll(/https?:\/\/[^\s<>"]+/g)) {
    const url = found[0].replace(/[.,;:!?)\]}'’”…]+$/u, "");
    span.append(text.slice(from, found.index));
    const link = make("a", "", url);
    link.href = url;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    span.append(link);
    from = found.index + url.length;
  }
  span.append(text.slice(from));
  return span;
}

// markRead sends the receipts for what the person can see: the chat is open and
// the page is in front.
function markRead() {
  if (!open || state.unreachable || document.visibilityState !== "visible" || !unread(open)) return;
  call("read", { channel: open.channel, from: open.number }).catch(() => {}); // the next change tries again
}

$("compose").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !open) return;
  const chat = open;
  $("send").disabled = true;
  if (await attempt(() => call("messages", { channel: chat.channel, to: chat.number, text }))) {
    $("text").value = "";
    grow();
    atEnd = true;
    stay();
  }
  $("send").disabled = false;
  $("text").focus();
});

// Enter sends, Shift and Enter breaks the line. The line break itself is caught,
// not the key: keyboards on a screen do not name their keys.
let shift = false;
$("text").addEventListener("keydown", (event) => (shift = event.shiftKey));
$("text").addEventListener("beforeinput", (event) => {
  if (event.inputType !== "insertLineBreak" || shift || event.isComposing) return;
  event.preventDefault();
  $("compose").requestSubmit();
});

function grow() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = text.scrollHeight + 2 + "px";
}
$("text").addEventListener("input", grow);

$("back").addEventListener("click", () => {
  const key = keyOf(open);
  history.pushState(null, "", location.pathname);
  goHome();
  const from = $("threads").querySelector('[data-key="' + CSS.escape(key) + '"]');
  if (from) from.focus();
});

$("block").addEventListener("click", () => {
  const on = $("block").getAttribute("aria-pressed") !== "true";
  attempt(() => call("block", { channel: open.channel, on }));
});

$("off").addEventListener("change", () => attempt(() => call("unreachable", { on: $("off").checked })));

document.addEventListener("visibilitychange", markRead);
addEventListener("popstate", () => {
  goHome();
  openFromAddress();
});

draw();
new EventSource("/phone/" + encodeURIComponent(number) + "/changes").onmessage = refresh;
