package conversations

// schemaKey is one row of the store's schema: docs/redis.md is printed from
// these rows, and the table in doc.go is held against them.
type schemaKey struct {
	Key      string // as spelled in doc.go; {p} is the partition's hash tag
	Type     string
	Holds    string
	Lifetime string // which retention, or "none: why"
	Wrote    string // who writes it
}

// schema lists every key that the store has.
var schema = []schemaKey{
	{"{p}:c:<contact>", "hash", "v version, s the contact with its conversation", "money, renewed by every commit", "commit.lua"},
	{"{p}:r:<request>", "string", "a payment request, or a tombstone", "money", "commit.lua; SET NX for a tombstone"},
	{"{p}:m:<message>", "string", "a message", "chats", "commit.lua"},
	{"{p}:e:<request>", "stream", "the request's own events, n-1 for the n-th", "money", "commit.lua"},
	{"{p}:h:<contact>", "zset", "message ids by time: the transcript", "chats", "commit.lua"},
	{"{p}:y:<merchant>", "zset", "contacts by the time of their newest message", "chats", "commit.lua"},
	{"{p}:l:<code>", "string", "the request that a short link leads to", "money", "commit.lua"},
	{"{p}:x:<merchant>", "zset", "the merchant's request ids by time of creation", "none: one small entry a request", "commit.lua"},
	{"{p}:i:<commit>", "string", "version that a commit made, for resent commands", "commits", "commit.lua"},
	{"{p}:d:<key>", "string", "first outcome under a business dedupe key", "dedupe", "commit.lua"},
	{"{p}:out", "stream", "outbox, consumer group \"workers\"", "none: entries are deleted when done", "commit.lua; revive.lua"},
	{"{p}:t", "zset", "timers by due time", "none: entries are taken away when done", "commit.lua; the timer runner"},
	{"{p}:f", "stream", "feed, for /v1/events", "none: capped by age", "commit.lua"},
	{"{p}:dead", "stream", "outbox entries that could not be worked", "none: until retried or dropped", "the outbox reader"},
	{"{p}:ua", "zset", "attempts whose outcome is not known, by when they began", "money, renewed by every new one", "commit.lua"},
	{"{p}:uo", "zset", "operations whose outcome is not known, by when they began", "money, renewed by every new one", "commit.lua"},
	{"{p}:cb", "string", "when the feed was last read for callbacks, ms", "none: one a partition", "the callback pump"},
	{"a:<merchant>:<kind>:<v>", "string", "contact that owns an address", "money, renewed when used", "SET NX"},
	{"o:<merchant>:<order>", "string", "request that holds an order, and the last before", "money", "move.lua"},
	{"k:<merchant>:<key>", "string", "hash and chosen ids of a create or sealing", "idempotency", "SET NX"},
	{"s:<sealed order>", "string", "a sealed order", "sealed orders, renewed when read", "SET"},
	{"q:<throttle>", "string", "a shared rate limit", "until it is full again", "redis_rate's script"},
	{"n:<merchant>:<address>", "hash", "tries to pay from an address, by its digest", "until their window ends", "tries.lua"},
	{"w:<sender>", "hash", "notices about a sender, and what holds it back", "money, renewed by every word of it", "sender.lua, release.lua"},
	{"b:<merchant>", "hash", "callback endpoints, and where each is kept", "none: at most a few entries a merchant", "callback_list.lua; HDEL"},
	{"g:<merchant>", "hash", "digests of settings, to see which have changed", "none: one small entry a setting", "callback_set.lua"},
	{"{cb.<endpoint>}:ep", "hash", "a callback endpoint: where, secrets, state", "none: until it is deleted", "callback_set.lua; callback_record.lua"},
	{"{cb.<endpoint>}:due", "zset", "deliveries by when they are tried next", "callbacks.keep, renewed by every event", "callback_queue.lua; callback_take.lua; callback_record.lua; callback_again.lua"},
	{"{cb.<endpoint>}:open", "zset", "deliveries that are not settled, by their event's time", "callbacks.keep, renewed by every event", "callback_queue.lua; callback_record.lua; callback_again.lua"},
	{"{cb.<endpoint>}:all", "zset", "deliveries by their event's time", "callbacks.keep, renewed by every event", "callback_queue.lua"},
	{"{cb.<endpoint>}:d:<event>", "hash", "a delivery: which event, tries, last answer", "callbacks.keep", "callback_queue.lua; callback_record.lua; callback_again.lua"},
	{"store", "string", "number of partitions", "none: it is the store's identity", "SET NX"},
}
