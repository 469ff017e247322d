// An order system in one file: it seals an order for its agent, shows Paythread's panel beside it, takes the signed callbacks and
// refunds. Node.js 20 or newer and nothing else. What a real one does as well is said where it is left out.
//
//     API_KEY=demo-key-not-a-secret-0001 node server.mjs        (against: go run ./gateway demo; then open http://localhost:3000)
import { createHmac, timingSafeEqual } from 'node:crypto';
import http from 'node:http';

const gateway = process.env.GATEWAY ?? 'http://127.0.0.1:8080';
const key = process.env.API_KEY; // stays on this server: no browser ever sees it
const port = Number(process.env.PORT ?? 3000);
const rand = (value) => ({ value, currency: 'ZAR' });

// In earnest: tables of your database.
const orders = new Map([['1047', {
  status: 'unpaid', seq: 0, sealed: '', request: '',
  order: {
    order: '1047', phone: '082 123 4567', country: 'ZA', customer_name: 'Lerato Mokoena',
    line_items: [{ name: 'Service', sku: 'S1', quantity: 1, unit_price: rand('129.57'), total: rand('129.57') }],
    subtotal: rand('129.57'), tax: rand('19.43'), total: rand('149.00'),
  },
}]]);
const seen = new Set();
let secret = '';

async function call(method, path, body, idempotencyKey) {
  const response = await fetch(gateway + path, {
    method, body: body && JSON.stringify(body),
    headers: {
      Authorization: `Bearer ${key}`, Accept: 'application/json', ...(body && { 'Content-Type': 'application/json' }),
      ...(idempotencyKey && { 'Idempotency-Key': idempotencyKey }),
    },
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${method} ${path}: ${answer.code} ${answer.reason ?? ''} ${answer.detail}`);
  return answer;
}

// Seals the order the first time, and renews the token of the sealed one after that. In earnest: only for an agent who is logged in.
async function session(known) {
  const agent = { id: 'ag7', name: 'Thandi' };
  const answer = await call('POST', '/v1/agent-sessions', known.sealed ? { agent, sealed_order: known.sealed } : { agent, order: known.order });
  known.sealed = answer.sealed_order;
  return { token: answer.token };
}

// The key holds the order and the sum: pressed twice, it refunds once.
async function refund(known) {
  const amount = rand('10.00');
  return call('POST', `/v1/payment-requests/${known.request}/refund`, { amount, reason: 'goodwill', expected_refundable: known.order.total },
    `refund-${known.order.order}-${amount.value}`);
}

// Whether a callback was signed with our secret, within five minutes: over the bytes as they came.
function verified(headers, body) {
  const id = headers['webhook-id'], time = Number(headers['webhook-timestamp']);
  if (!secret || !id || !(Math.abs(Date.now() / 1000 - time) <= 300)) return false;
  const want = createHmac('sha256', Buffer.from(secret.replace('whsec_', ''), 'base64')).update(`${id}.${time}.`).update(body).digest();
  return String(headers['webhook-signature']).split(' ').some((signature) => {
    const got = Buffer.from(signature.replace('v1,', ''), 'base64');
    return got.length === want.length && timingSafeEqual(got, want);
  });
}

// Takes an event once, and only if it is newer than what is known.
function take(id, { type, data }) {
  const known = orders.get(data.order);
  if (seen.has(id) || !known) return;
  seen.add(id);
  if (known.request === data.payment_request_id && data.seq <= known.seq) return;
  Object.assign(known, { request: data.payment_request_id, seq: data.seq, status: data.status });
  console.log('callback', type, data.order, data.status);
}

const page = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Order 1047</title>
<h1>Order 1047</h1><p>Status: <strong id="status">unpaid</strong> <button id="refund" hidden>Refund ZAR 10.00</button></p>
<paythread-panel id="panel" gateway="${gateway}"></paythread-panel>
<script src="${gateway}/extension/paythread.js" crossorigin defer></script><script src="/page.js" defer></script></html>`;

// In the browser. The panel's events say when to look; what counts is what our own server heard.
function inTheBrowser() {
  const panel = document.getElementById('panel');
  const setToken = async () => { panel.token = (await (await fetch('/session', { method: 'POST' })).json()).token; };
  const look = async () => {
    const { status } = await (await fetch('/status')).json();
    document.getElementById('status').textContent = status;
    document.getElementById('refund').hidden = status !== 'paid';
  };
  panel.addEventListener('paythread-token-needed', setToken);
  panel.addEventListener('paythread-status', look);
  document.getElementById('refund').addEventListener('click', () => fetch('/refund', { method: 'POST' }));
  setInterval(look, 1000); // a callback may come a moment after the panel's event
  setToken();
}

async function answer(request, response, body) {
  const known = orders.get('1047');
  const send = (status, type, text) => response.writeHead(status, {
    'Content-Type': type, 'Cache-Control': 'no-store',
    'Content-Security-Policy': `default-src 'none'; script-src 'self' ${gateway}; connect-src 'self' ${gateway}; base-uri 'none'; frame-ancestors 'none'`,
  }).end(text);
  switch (`${request.method} ${request.url}`) {
    case 'GET /': return send(200, 'text/html; charset=utf-8', page);
    case 'GET /page.js': return send(200, 'text/javascript', `(${inTheBrowser})()`);
    case 'GET /status': return send(200, 'application/json', JSON.stringify({ status: known.status }));
    case 'POST /session': return send(200, 'application/json', JSON.stringify(await session(known)));
    case 'POST /refund': return send(200, 'application/json', JSON.stringify((await refund(known)).totals));
    case 'POST /callbacks':
      if (!verified(request.headers, body)) return send(401, 'text/plain', 'not signed by the gateway');
      take(request.headers['webhook-id'], JSON.parse(body));
      return response.writeHead(204).end();
    default: return send(404, 'text/plain', 'nothing here');
  }
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => answer(request, response, Buffer.concat(chunks)).catch((error) => {
    console.error(error.message);
    response.writeHead(502, { 'Content-Type': 'text/plain' }).end('the gateway did not do it; see the log');
  }));
});
server.listen(port, '127.0.0.1', async () => {
  const here = `http://127.0.0.1:${server.address().port}`;
  // In earnest: once, by hand, and the secret goes where your secrets lie. Here the key makes a restart find the endpoint that it has.
  ({ secret } = await call('POST', '/v1/callback-endpoints', { url: `${here}/callbacks`, events: ['payment_request.*'] }, `oms-${here}`));
  console.log('listening', here.replace('127.0.0.1', 'localhost'));
});
