// Asks a customer for a payment, waits until it is paid, and refunds a part.
// paythread.d.ts beside it was made from the gateway's own description:
//
//     npm install
//     npx openapi-typescript http://127.0.0.1:8080/openapi.json -o paythread.d.ts
//     npx tsc
//     GATEWAY=http://127.0.0.1:8080 API_KEY=demo-key-not-a-secret-0001 node pay.js
import createClient from 'openapi-fetch';
import type { components, paths } from './paythread.d.ts';

declare const process: { env: Record<string, string | undefined>; exit(code: number): never };

type Problem = components['schemas']['Problem'];
type PaymentRequest = components['schemas']['PaymentRequest'];

const client = createClient<paths>({
  baseUrl: process.env.GATEWAY ?? 'http://127.0.0.1:8080',
  headers: { Authorization: `Bearer ${process.env.API_KEY ?? ''}` },
});
const order = process.env.ORDER ?? '1046';
const rand = (value: string) => ({ value, currency: 'ZAR' });

function must<T>(answer: { data?: T; error?: Problem }): T {
  if (answer.error) {
    console.error(answer.error.code, answer.error.reason ?? '', answer.error.detail);
    process.exit(1);
  }
  return answer.data as T;
}

const made: PaymentRequest = must(await client.POST('/v1/payment-requests', {
  params: { header: { 'Idempotency-Key': `order-${order}` } },
  body: {
    order, channel: 'whatsapp', phone: process.env.PHONE ?? '082 123 4567',
    subtotal: rand('129.57'), tax: rand('19.43'), total: rand('149.00'),
  },
}));
console.log('asked', made.id);

// The log of a payment request is numbered without gaps: after is where to go on.
async function waitFor(type: string, after = 0): Promise<number> {
  for (;;) {
    const page = must(await client.GET('/v1/payment-requests/{id}/events', {
      params: { path: { id: made.id }, query: { after } }, headers: { Accept: 'application/json' },
    }));
    for (const event of typeof page === 'string' ? [] : page.items) {
      after = event.seq;
      if (event.type === type) {
        return after;
      }
    }
    await new Promise((later) => setTimeout(later, 200));
  }
}

const paid = await waitFor('paid');
console.log('paid', made.id);
must(await client.POST('/v1/payment-requests/{id}/refund', {
  params: { path: { id: made.id }, header: { 'Idempotency-Key': `order-${order}-refund` } },
  body: { amount: rand('10.00'), reason: 'one part was missing', expected_refundable: rand('149.00') },
}));
await waitFor('refunded', paid);
const now = must(await client.GET('/v1/payment-requests/{id}', { params: { path: { id: made.id } } }));
console.log('refunded', now.totals.refunded.value);
