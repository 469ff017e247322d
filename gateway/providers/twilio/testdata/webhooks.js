// Signs webhooks, and judges signatures, with Twilio's own library. Reads a
// JSON list of tasks from standard input and writes a list of what came out:
//
//   {"do": "sign", "token", "url", "params"}             the signature of a form, or of a GET without params
//   {"do": "hash", "body"}                               what goes into bodySHA256
//   {"do": "judge", "token", "url", "params", "signature"}        true or false, of a form
//   {"do": "judge body", "token", "url", "body", "signature"}     the same of any other body
"use strict";
const twilio = require("twilio");

const tasks = {
  sign: (t) => twilio.getExpectedTwilioSignature(t.token, t.url, t.params || {}),
  hash: (t) => twilio.getExpectedBodyHash(t.body),
  judge: (t) => twilio.validateRequest(t.token, t.signature, t.url, t.params || {}),
  "judge body": (t) => twilio.validateRequestWithBody(t.token, t.signature, t.url, t.body),
};

const chunks = [];
process.stdin.on("data", (chunk) => chunks.push(chunk));
process.stdin.on("end", () => {
  const list = JSON.parse(Buffer.concat(chunks).toString("utf8"));
  process.stdout.write(JSON.stringify(list.map((task) => tasks[task.do](task))));
});
