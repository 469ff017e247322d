package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
)

const (
	eventStreamType = "text/event-stream"
	eventsAtOnce    = 100
	maxEventsAtOnce = 500
)

// EventList is a page of one payment request's events.
type EventList struct {
	Items []EventDocument `json:"items" doc:"Of this page."`
	Last  int64           `json:"last" doc:"Number of the newest event: there is more while it is above the last item's."`
}

// MerchantEventList is a page of a merchant's events.
type MerchantEventList struct {
	Items []EventDocument `json:"items" doc:"Of this page."`
	Last  string          `json:"last" doc:"The place after the last item: give it as after."`
	Reset bool            `json:"reset,omitempty" doc:"Some events are lost; read the lists again."`
}

// showRequestEvents answers GET /v1/payment-requests/{id}/events, as a stream
// or, when asked for JSON, as a page.
func (a *api) showRequestEvents(c *fiber.Ctx) (err error) {
	defer recovered(&err)
	ctx := c.UserContext()
	who := callOf(ctx)
	stream, err := wantsStream(c)
	if err != nil {
		return err
	}
	r, err := a.requestFor(ctx, who, strings.Clone(c.Params("id")), grantReadAll)
	if err != nil {
		return err
	}
	if stream {
		return a.streams.serveRequestEvents(c, r, a.streamOptions(who, c))
	}
	limit, err := limitOf(c)
	if err != nil {
		return err
	}
	after, err := strconv.ParseInt(c.Query("after", "0"), 10, 64)
	if err != nil || after < 0 {
		return conversations.Invalid("after", "use the number of an event, or leave it out")
	}
	events, err := a.store.Events(ctx, r.ID, after, int64(limit))
	if err != nil {
		return err
	}
	page := EventList{Items: make([]EventDocument, 0, len(events)), Last: r.LastEvent}
	for _, e := range events {
		page.Items = append(page.Items, eventDocument(e))
		page.Last = max(page.Last, e.Seq)
	}
	return c.JSON(page)
}

// showMerchantEvents answers GET /v1/events in the same ways.
func (a *api) showMerchantEvents(c *fiber.Ctx) (err error) {
	defer recovered(&err)
	ctx := c.UserContext()
	who := callOf(ctx)
	if err := who.needs(grantReadAll); err != nil {
		return err
	}
	stream, err := wantsStream(c)
	if err != nil {
		return err
	}
	if stream {
		return a.streams.serveMerchantEvents(c, who.merchant.ID, a.streamOptions(who, c))
	}
	limit, err := limitOf(c)
	if err != nil {
		return err
	}
	page := MerchantEventList{Items: []EventDocument{}}
	if c.Query("after") == "" {
		end, err := a.store.FeedEnd(ctx)
		if err != nil {
			return err
		}
		page.Last = end.String()
		return c.JSON(page)
	}
	from, err := a.store.ParseCursor(c.Query("after"))
	if err != nil {
		return conversations.Invalid("after", "this is not a place in this feed; use last as it was given")
	}
	events, to, reset, err := a.store.ReplayFeed(ctx, who.merchant.ID, from)
	if err != nil {
		return err
	}
	if len(events) > limit { // the place after the last one shown
		events, to = events[:limit], slices.Clone(from)
		for _, e := range events {
			to[e.Partition] = e.ID
		}
	}
	for _, e := range events {
		page.Items = append(page.Items, eventDocument(e.Event))
	}
	page.Last, page.Reset = to.String(), reset
	return c.JSON(page)
}

// wantsStream tells whether a caller wants events as they happen: who does not
// say gets a stream. Parameters that are not known then are refused, as in
// every other call.
func wantsStream(c *fiber.Ctx) (bool, error) {
	switch c.Accepts(eventStreamType, fiber.MIMEApplicationJSON) {
	case eventStreamType:
		return true, onlyParameters(c, "after", "limit", lastEventParameter)
	case fiber.MIMEApplicationJSON:
		return false, onlyParameters(c, "after", "limit")
	}
	return false, errNotAcceptable
}

// lastEventParameter is how clients say Last-Event-ID that stand in for the
// browser's EventSource and avoid the header, which costs a preflight.
const lastEventParameter = "lastEventId"

// lastEvent returns after which event a stream goes on, and the field that says
// so: what the client saw of the stream itself, or a place that it has from a
// page.
func lastEvent(c *fiber.Ctx) (id, field string) {
	if id := c.Get("Last-Event-ID"); id != "" {
		return strings.Clone(id), "Last-Event-ID"
	}
	for _, name := range []string{lastEventParameter, "after"} {
		if id := c.Query(name); id != "" {
			return strings.Clone(id), name
		}
	}
	return "", ""
}

var errNotAcceptable = badRequest(fiber.StatusNotAcceptable, "not_acceptable", "events come as text/event-stream or application/json")

// onlyParameters refuses parameters that are not among the known ones.
func onlyParameters(c *fiber.Ctx, known ...string) error {
	var unknown []FieldProblem
	for _, name := range slices.Sorted(maps.Keys(c.Queries())) {
		if !slices.Contains(known, name) {
			unknown = append(unknown, FieldProblem{Field: clipped(name), Message: humaWords["unknown query parameter"], Location: "query." + clipped(name)})
		}
	}
	if len(unknown) > 0 {
		return invalid(unknown)
	}
	return nil
}

func limitOf(c *fiber.Ctx) (int, error) {
	limit, err := strconv.Atoi(c.Query("limit", strconv.Itoa(eventsAtOnce)))
	if err != nil || limit < 1 || limit > maxEventsAtOnce {
		return 0, conversations.Invalid("limit", "use 1 to %d", maxEventsAtOnce)
	}
	return limit, nil
}

// streamOptions are what a stream carries over from its call.
func (a *api) streamOptions(who *call, f *fiber.Ctx) streamOptions {
	// What still needs stays as long as the stream: it holds no more than that.
	authorization, origin, merchantID := strings.Clone(f.Get(fiber.HeaderAuthorization)), strings.Clone(f.Get(fiber.HeaderOrigin)), who.merchant.ID
	last, field := lastEvent(f)
	o := streamOptions{Header: who.cors, LastEventID: last, Field: field, Caller: streamCaller{
		id: who.secret, most: a.config().Events.StreamsPerKey,
		still: func() bool {
			now, err := a.admit(authorization, origin)
			return err == nil && now.merchant.ID == merchantID
		},
	}}
	if who.session != nil {
		o.Until, o.Caller.most = who.session.ExpiresAt.Time, a.config().Events.StreamsPerToken
	}
	return o
}
