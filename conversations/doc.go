// Package conversations is the domain: contacts, conversations, messages and
// payment requests, their state machines, and the store that keeps them.
//
// Every change, whoever causes it, is an Event given to Apply, which is pure,
// and then one atomic commit (lua/commit.lua). Nothing is sent, charged,
// scheduled or shown except as the consequence of a commit: it leaves behind
// outbox entries (OutboxReader), timers (TimerRunner) and events (FeedReader).
// The tables of states.go say what may happen; docs/states.md is printed from
// them.
//
// A contact is the aggregate: one version covers the conversation held with
// it, its payment requests and its messages. A process applies an event to
// what it last saw of the contact; if that was old, the commit answers with
// the present state and the event is applied anew. An event of a known contact
// so costs one script call.
//
// # Keys
//
// All keys begin with the store's prefix. Those of a partition share a hash
// tag, here {p}, and so one slot of a Redis Cluster. Those of a callback endpoint
// share one as well, here {cb.<endpoint>}, which names its merchant, too.
//
//	key                        type    holds                                                   lifetime
//	{p}:c:<contact>            hash    v version, s the contact with its conversation          money, renewed by every commit
//	{p}:r:<request>            string  a payment request, or a tombstone                       money
//	{p}:m:<message>            string  a message                                               chats
//	{p}:e:<request>            stream  the request's own events, n-1 for the n-th              money
//	{p}:h:<contact>            zset    message ids by time: the transcript                     chats
//	{p}:y:<merchant>           zset    contacts by the time of their newest message            chats
//	{p}:l:<code>               string  the request that a short link leads to                  money
//	{p}:x:<merchant>           zset    the merchant's request ids by time of creation          none: one small entry a request
//	{p}:i:<commit>             string  version that a commit made, for resent commands         commits
//	{p}:d:<key>                string  first outcome under a business dedupe key               dedupe
//	{p}:out                    stream  outbox, consumer group "workers"                        none: entries are deleted when done
//	{p}:t                      zset    timers by due time                                      none: entries are taken away when done
//	{p}:f                      stream  feed, for /v1/events                                    none: capped by age
//	{p}:dead                   stream  outbox entries that could not be worked                 none: until retried or dropped
//	{p}:ua                     zset    attempts whose outcome is not known, by when they began money, renewed by every new one
//	{p}:uo                     zset    operations whose outcome is not known, by when they began money, renewed by every new one
//	{p}:cb                     string  when the feed was last read for callbacks, ms           none: one a partition
//	a:<merchant>:<kind>:<v>    string  contact that owns an address                            money, renewed when used
//	o:<merchant>:<order>       string  request that holds an order, and the last before        money
//	k:<merchant>:<key>         string  hash and chosen ids of a create or sealing              idempotency
//	s:<sealed order>           string  a sealed order                                          sealed orders, renewed when read
//	q:<throttle>               string  a shared rate limit                                     until it is full again
//	n:<merchant>:<address>     hash    tries to pay from an address, by its digest             until their window ends
//	w:<sender>                 hash    notices about a sender, and what holds it back          money, renewed by every word of it
//	b:<merchant>               hash    callback endpoints, and where each is kept              none: at most a few entries a merchant
//	g:<merchant>               hash    digests of settings, to see which have changed          none: one small entry a setting
//	{cb.<endpoint>}:ep         hash    a callback endpoint: where, secrets, state              none: until it is deleted
//	{cb.<endpoint>}:due        zset    deliveries by when they are tried next                  callbacks.keep, renewed by every event
//	{cb.<endpoint>}:open       zset    deliveries that are not settled, by their event's time  callbacks.keep, renewed by every event
//	{cb.<endpoint>}:all        zset    deliveries by their event's time                        callbacks.keep, renewed by every event
//	{cb.<endpoint>}:d:<event>  hash    a delivery: which event, tries, last answer             callbacks.keep
//	store                      string  number of partitions                                    none: it is the store's identity
//
// Only this package holds a Redis client.
package conversations
