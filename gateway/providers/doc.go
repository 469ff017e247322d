// Package providers is the contract between the gateway and the messaging
// companies, with what every adapter needs: one way to make a call and to tell
// whether it may have taken effect, one table from HTTP status to failure
// reason, one check of settings.
//
// An adapter lives in a folder of its own and exports a Registration. It keeps
// this order: limits with their source, settings, registration, verify, parse,
// status table, send, error table. It imports no other adapter, holds no
// address, client or clock in a package variable, and runs the suite of
// providertest.
//
// # What an adapter promises
//
//   - Nothing is parsed before its signature was checked, over exactly the
//     bytes that the provider signs.
//   - What Parse returns is a function of the webhook alone: the same event
//     has the same Kind, ProviderID and Status however often it is delivered.
//   - Send makes one call. Whether it is made again is the dispatcher's to
//     decide, from the Failure.
//   - No error and no log line holds a secret, a message's text or a whole
//     phone number. Providers quote numbers and tokens in their error texts, so
//     the texts are dropped and only the codes are kept.
package providers
