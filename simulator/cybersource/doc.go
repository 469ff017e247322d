// Package cybersource plays CyberSource: its REST API and Unified Checkout v1 as a browser sees it.
//
// It is written from CyberSource's public documents, keeps everything in memory, and refuses what
// CyberSource refuses: unsigned and replayed requests, origins that are not https, dead transient
// tokens, captures beyond the hold, voids after settlement. It takes no card that exists.
//
// # Routes
//
//	POST /uc/v1/sessions                       a capture context (bare RS256 JWT)
//	GET  /flex/v2/public-keys/{kid}            keys of contexts, tokens and results
//	POST /pts/v2/payments                      authorization or sale
//	GET  /pts/v2/payments/{id}                 a payment, visible at once
//	POST /pts/v2/payments/{id}/captures        and /reversals, /refunds, /voids
//	POST /pts/v2/captures/{id}/refunds         and /voids
//	POST /pts/v2/refunds/{id}/voids
//	POST /pts/v2/reversals, /pts/v2/voids      time-out reversal and void, by transactionId
//	POST /tss/v2/searches, GET .../{id}        search, visible SearchDelay after the transaction
//	GET  /tss/v2/transactions/{id}             details, with the same delay
//	POST /kms/egress/v2/keys-sym, keys-asym    keys that sign and encrypt notifications
//	GET  /notification-subscriptions/v2/products/{org}
//	POST /notification-subscriptions/v2/webhooks, GET, PATCH, DELETE .../{id}, PUT .../{id}/status
//	POST /notification-subscriptions/v1/webhooks/{id}   a test delivery
//
// The browser's side: the client library under /uc/v1/assets, the card frame under /uc/v1/frames.
// For scripts and people: POST /cybersource/transient-tokens, GET /cybersource/transactions,
// POST /cybersource/advance, POST /cybersource/back-office, GET /cybersource/test-cards,
// GET /cybersource/outcomes, GET and POST /cybersource/subscriptions, POST /cybersource/notifications.
//
// # Outcomes
//
// Three things decide a payment, in this order: the card's expiry, the card's number, the amount.
// Numbers with an outcome of their own are listed by [TestCards] and at /cybersource/test-cards; any
// other number that passes the Luhn check is approved. Challenge cards of the payer authentication
// guide answer PENDING_AUTHENTICATION when the request asks for CONSUMER_AUTHENTICATION.
//
// Amounts decide as the processor behind the account does. With Processor "vpc" (Visa Platform
// Connect) 40NN.00 is the processor's answer NN, 40.00, 50.00 and 6001.00 fail the address check,
// 6002.00 the CVN check, 6003.00 is approved in part when the request allows it, and 4006.00, 4091.00
// and 4096.00 answer 502. With "paymentech" 2000 answers 502, and 401, 164, 1500, 2201, 2202 to 2205,
// 2225, 2227, 2229, 2230 and 2836 are refused as its table says. With no processor, amounts decide nothing.
//
// What neither card nor amount reaches, a fault rule does, by the name of the outcome: see [Outcomes].
//
// # Notifications
//
// Who has subscribed is told of authorizations, captures, reversals, refunds and voids, of the end of
// reviews, and of what the widget completed by itself. A notification that is not answered with 2xx is
// sent three times more. What the signature covers is set for each subscription, since the documents,
// the official plug-ins and those who receive notifications differ.
//
// # Refusals that the documents leave open
//
// An unknown payment in a path is 400 INVALID_DATA for POST and 404 for GET. A reversal whose amount is
// not the authorized one, and a refund beyond what is left, are 400 INVALID_DATA. A reversal while a
// capture stands is TRANSACTION_ALREADY_REVERSED_OR_SETTLED. Missing session fields have reason
// UNIFIED_PAYMENTS_VALIDATION_FIELDS, wrong ones UNIFIED_PAYMENTS_VALIDATION_PARAMS.
//
// # Faults
//
// Calls are named cybersource.sessions, .payments, .captures, .reversals, .voids, .refunds, .searches,
// .transactions, .retrieve, .subscriptions and .keys; the browser's own are cybersource.tokens and
// cybersource.complete, and what goes out is [CallNotification]. A call that is refused takes no fault's
// effect, but counts as one of the rule's turns.
package cybersource
