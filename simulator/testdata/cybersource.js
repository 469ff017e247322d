// Makes calls with CyberSource's own library. Reads one JSON object from standard input:
//
//   {"host": "localhost:8443", "authentication": "http_signature" or "jwt", "merchant", "keyId", "secret",
//    "calls": [{"name", "api", "method", "arguments"}]}
//
// and makes the calls one after the other. "$name.path" in an argument stands for what an earlier
// call answered. It writes what each came to: {"name": {"status", "data"}}. A call to the api "card"
// does what the browser's part does: it makes a transient token.
"use strict";
// Whatever the library has to say goes where a person sees it, and not into the results.
console.log = console.info = console.error;
const cybersource = require("cybersource-rest-client");

function configuration(input) {
  return {
    authenticationType: input.authentication,
    jwtKeyType: "SHARED_SECRET",
    runEnvironment: input.host,
    merchantID: input.merchant,
    merchantKeyId: input.keyId,
    merchantsecretKey: input.secret,
    useMetaKey: false,
    logConfiguration: { enableLog: false },
  };
}

// fill puts earlier answers in the place of "$name.path".
function fill(value, results) {
  if (typeof value === "string" && value.startsWith("$")) {
    const [name, ...path] = value.slice(1).split(".");
    return path.reduce((at, member) => (at === undefined || at === null ? at : at[member]), results[name].data);
  }
  if (Array.isArray(value)) return value.map((v) => fill(v, results));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, fill(v, results)]));
  }
  return value;
}

function call(input, task, results) {
  const args = fill(task.arguments, results);
  if (task.api === "card") {
    return fetch("https://" + input.host + "/cybersource/transient-tokens", { method: "POST", body: JSON.stringify(args[0]) })
      .then(async (response) => ({ status: response.status, data: (await response.json()).transientToken }));
  }
  const api = new cybersource[task.api](configuration(input), new cybersource.ApiClient());
  return new Promise((resolve) => {
    api[task.method](...args, (error, data, response) => {
      if (error) {
        const answer = error.response;
        resolve({ status: error.status || 0, data: answer ? JSON.parse(answer.text || "null") : String(error) });
        return;
      }
      // The library's models leave out what they do not know; what came is what counts.
      resolve({ status: response.status, data: response.text ? parsed(response.text) : data });
    });
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text; // a capture context is no JSON
  }
}

async function main(input) {
  const results = {};
  for (const task of input.calls) {
    results[task.name] = await call(input, task, results);
  }
  process.stdout.write(JSON.stringify(results), () => process.exit(0)); // its connections would keep it alive
}

const chunks = [];
process.stdin.on("data", (chunk) => chunks.push(chunk));
process.stdin.on("end", () => {
  main(JSON.parse(Buffer.concat(chunks).toString("utf8"))).catch((error) => {
    console.error(error);
    process.exit(1);
  });
});
