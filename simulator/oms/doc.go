// Package oms is a small order-management system, the kind of program that a
// merchant's agents work in all day and that Paythread is embedded into. It is
// the outside world: it shares no code with the gateway and talks to it as any
// customer's system would, with an API key that never leaves its server.
//
// The way of one order: an agent creates it, opens its page, picks "Chat to
// pay"; the page asks this server for an agent session; this server hands the
// order over with POST /v1/agent-sessions and gives the page the token; the
// page shows the gateway's panel. The order turns paid in the page when the
// panel says so, and for good when this server has asked the gateway itself:
// what a browser says is never a reason to ship goods.
//
// Orders live in memory and are gone with the process.
package oms
