// order.js is the order page's own code: it opens Paythread's panel beside the order and shows what became of the payment.
'use strict';
(() => {
  const page = document.getElementById('page');
  const [badge, drawer, body, problem, opener, again] = ['status', 'drawer', 'drawer-body', 'problem', 'chat-to-pay', 'show-chat'].map((id) => document.getElementById(id));
  const api = `/oms/api/orders/${encodeURIComponent(page.dataset.order)}`;
  const WORDS = { unpaid: 'Unpaid', asked: 'Payment requested', processing: 'Payment in progress', authorized: 'Authorised', paid: 'Paid', refunded: 'Refunded' };
  const FROM_LIFECYCLE = {
    open: 'asked', processing: 'processing', in_review: 'processing', authorized: 'authorized', paid: 'paid', partially_refunded: 'paid',
    refunded: 'refunded', reversed: 'refunded', expired: 'unpaid', cancelled: 'unpaid', failed: 'unpaid',
  };
  let panel = null, lastSeq = new Map(), confirmed = page.dataset.status, asking = false;

  function show(status) {
    badge.dataset.status = page.dataset.status = status;
    if (badge.textContent !== WORDS[status]) badge.textContent = WORDS[status];
    const settled = status === 'paid' || status === 'refunded';
    document.getElementById('settled').hidden = !settled;
    document.getElementById('settled-word').textContent = status === 'refunded' ? 'refunded' : 'paid';
    document.getElementById('methods').hidden = settled;
    again.hidden = !settled || !(panel || page.dataset.handled);
  }

  function complain(text) {
    problem.textContent = text;
    problem.hidden = !text;
  }

  async function session() {
    const response = await fetch(`${api}/session`, { method: 'POST' });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }

  // The page's word is a promise; our own server asks the gateway and has the last one.
  async function check() {
    if (asking) return;
    asking = true;
    try {
      const response = await fetch(api);
      if (!response.ok) return;
      const order = await response.json();
      page.dataset.handled = order.request || '';
      confirmed = order.status;
      page.dataset.confirmed = confirmed;
      show(order.status);
    } catch {
      // The next check tells.
    } finally {
      asking = false;
    }
  }

  async function open() {
    complain('');
    if (!panel) {
      try {
        const { token, gateway } = await session();
        panel = document.createElement('paythread-panel');
        panel.token = token; // as a property: it stays out of the document
        panel.gateway = gateway;
        body.append(panel);
      } catch (error) {
        panel = null;
        complain(error.message || 'The panel could not be opened.');
        return;
      }
    }
    drawer.hidden = false;
    document.body.classList.add('with-drawer');
    opener.setAttribute('aria-expanded', 'true');
    document.getElementById('close-drawer').focus();
  }

  function close() {
    drawer.hidden = true; // the panel goes on listening
    document.body.classList.remove('with-drawer');
    opener.setAttribute('aria-expanded', 'false');
    (opener.closest('[hidden]') ? again : opener).focus();
  }

  opener.addEventListener('click', open);
  again.addEventListener('click', open);
  document.getElementById('close-drawer').addEventListener('click', close);
  drawer.addEventListener('keydown', (event) => event.key === 'Escape' && !event.defaultPrevented && close());

  body.addEventListener('paythread-token-needed', async () => {
    try {
      panel.token = (await session()).token;
    } catch {
      // The panel asks again.
    }
  });

  body.addEventListener('paythread-status', ({ detail }) => {
    if (detail.seq <= (lastSeq.get(detail.payment_request_id) || 0)) return;
    lastSeq.set(detail.payment_request_id, detail.seq);
    const status = FROM_LIFECYCLE[detail.lifecycle];
    if (status) show(status);
    setTimeout(check, 1200);
  });

  setInterval(() => {
    if (!document.hidden && (panel || page.dataset.handled) && !(confirmed === 'paid' && page.dataset.status === 'paid')) check();
  }, 3000);
})();
