// Package faults makes the simulated companies misbehave on purpose, and keeps
// the log of every call they received.
//
// A company's handler asks the set for the fault of a call with Take, once for
// each call, and passes the result two points on its way: Before, when the
// request has been checked and nothing has been stored, and After, when all is
// stored and no byte of the answer has been written:
//
//	fault := set.Take("meta.messages")
//	if fault.Before(w, r) {
//		return
//	}
//	// the effect
//	if fault.After(w, r) {
//		return
//	}
//	// the answer
//
// What a company sends by itself, a webhook, asks Webhook and Hold instead.
//
// # Codes
//
// Two ways speak the company's own language, by the number in Rule.Code. A refuse
// rule answers a call with the company's error body for that code, and with the
// HTTP status that the company documents for it:
//
//	{"call":"meta.messages","do":"refuse","code":131056,"times":5}
//	{"call":"twilio.messages","do":"refuse","code":20429,"headers":{"Retry-After":"2"}}
//	{"call":"meta.*","do":"refuse","code":190}
//
// Rule.Status takes the place of the documented status. A fail rule lets the call
// succeed, and the message that was accepted end in that code later, by a
// webhook:
//
//	{"call":"meta.messages","do":"fail","code":131026,"share":0.1}
//	{"call":"twilio.messages","do":"fail","code":30007,"after":"sent"}
//	{"call":"twilio.messages","do":"fail","code":30003,"ending":"failed"}
//
// Rule.After lets earlier statuses come first, even delivered, since failures can
// come late; Rule.Ending picks the company's word where it has several. Any code
// is taken: those that a company's table does not have are answered with 400 and
// a text of their own.
//
// A company whose errors are words has Rule.Outcome in the place of the code, for
// refuse rules: the answer that the call is to get, by one of the names that the
// company gave with Name. Some of them are approvals, or errors behind which the
// effect has happened all the same.
//
//	{"call":"cybersource.payments","do":"refuse","outcome":"EXPIRED_CARD"}
//
// Outages are status rules: 429, 500 or 503 with a body of the caller's, or one
// that is no JSON at all, such as a proxy's 502; or time-outs and cut connections
// before and after the effect. A rule takes every matching call, the first Times,
// or a Share of them, spread evenly, so that a test's counts do not depend on
// luck.
package faults

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The ways in which a call can go wrong: the values of Rule.Do.
const (
	Status        = "status"         // answer with Rule.Status and Rule.Body, without any effect
	Refuse        = "refuse"         // answer with the company's error Rule.Code, without any effect
	Fail          = "fail"           // the effect happens and is answered, then the message fails with Rule.Code
	TimeoutBefore = "timeout_before" // no effect, and no answer until the client gives up
	TimeoutAfter  = "timeout_after"  // the effect happens, and no answer until the client gives up
	HoldBefore    = "hold_before"    // wait for Release, then go on as if nothing had been
	HoldAfter     = "hold_after"     // the effect happens, its answer waits for Release
	DropBefore    = "drop_before"    // the connection is cut, without any effect
	DropAfter     = "drop_after"     // the effect happens, then the connection is cut
	Delay         = "delay"          // wait for Rule.Delay, then go on
	Duplicate     = "duplicate"      // webhooks: sent twice
	Reorder       = "reorder"        // webhooks: sent after the one that follows
	Drop          = "drop"           // webhooks: never sent; for a call, the same as drop_before
	Forge         = "forge"          // webhooks: signed with a key that is not the receiver's
)

// longestTimeout bounds a timeout fault, so that a client without a deadline of
// its own does not keep a handler for ever.
const longestTimeout = 60 * time.Second

// longestLog is how many calls the log keeps; the oldest go first, and numbers
// go on, so a gap at the start shows.
const longestLog = 50_000

// Rule says what goes wrong with which call, and how often. The zero Times
// means every matching call.
type Rule struct {
	ID     string `json:"id,omitempty"`     // given by Replace when empty
	Call   string `json:"call"`             // such as "meta.messages"; a trailing * matches a prefix
	Do     string `json:"do"`               // one of the constants of this package
	Status int    `json:"status,omitempty"` // for status: the HTTP status to answer; for refuse: instead of the documented one
	Body   string `json:"body,omitempty"`   // for status: the raw body; JSON when it begins with {
	Delay  string `json:"delay,omitempty"`  // for delay: a Go duration
	Times  int    `json:"times,omitempty"`  // how many calls the rule takes; 0 for every one
	Skip   int    `json:"skip,omitempty"`   // how many matching calls pass unharmed first

	// Share is the part of the matching calls that the rule takes, above 0 and up
	// to 1; 0 for all. The calls it takes are spread evenly over the rest.
	Share float64 `json:"share,omitempty"`
	// Code is the company's own error code, for refuse and fail; a pointer, since
	// 0 is a code of Meta's.
	Code *int `json:"code,omitempty"`
	// Outcome is the name of an answer, for refuse, where a company has names.
	Outcome string `json:"outcome,omitempty"`
	// Headers go with the answer of status and refuse, such as Retry-After.
	Headers map[string]string `json:"headers,omitempty"`
	After   string            `json:"after,omitempty"`  // for fail: the status that comes before the failure, sent or delivered; empty for none
	Ending  string            `json:"ending,omitempty"` // for fail: failed or undelivered, where a company has both; empty for the usual one
}

// State is a rule with what has become of it.
type State struct {
	Rule
	Taken int `json:"taken"` // calls the rule has taken so far
	Held  int `json:"held"`  // calls that wait for Release, or for their client to give up, now
}

// Call is one line of the call log. It never carries a secret, a message text or
// a whole phone number.
type Call struct {
	N      int       `json:"n"` // counts from 1 over all companies
	At     time.Time `json:"at"`
	Call   string    `json:"call"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Status int       `json:"status"`        // what was answered; 0 when the connection was cut
	Ref    string    `json:"ref,omitempty"` // the caller's own reference, where the protocol has one
}

// RuleError says which rule of a list given to Replace is wrong, and where.
type RuleError struct {
	Index  int    // counted from 0
	Field  string // the JSON name of the field
	Reason string
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("rule %d: %s %s", e.Index, e.Field, e.Reason)
}

// Set holds the rules in force and the call log. It is safe for concurrent use;
// the zero Set is not usable, call New.
type Set struct {
	mu    sync.Mutex
	rules []*rule
	given int // ids given so far
	calls []Call
	n     int
	names map[string]func(string) bool // which outcomes a call knows
}

type rule struct {
	State
	delay    time.Duration
	passed   int           // calls let through by Skip
	seen     int           // matching calls behind Skip, for Share
	retired  bool          // by Release
	released chan struct{} // closed by Release, Replace and Clear
}

// New returns a set without rules: nothing goes wrong.
func New() *Set { return &Set{} }

// Replace puts rules in force instead of all those before, whose held calls are
// released. On a *RuleError nothing has changed.
func (s *Set) Replace(rules []Rule) error {
	ids := make(map[string]bool, len(rules))
	fresh := make([]*rule, 0, len(rules))
	for i, r := range rules {
		made, field, reason := newRule(r)
		if reason == "" && r.Outcome != "" && !s.knows(made) {
			field, reason = "outcome", "is not known to the call"
		}
		if reason == "" && r.ID != "" && ids[r.ID] {
			field, reason = "id", "is used twice"
		}
		if reason != "" {
			return &RuleError{Index: i, Field: field, Reason: reason}
		}
		ids[r.ID] = true
		fresh = append(fresh, made)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range fresh {
		for r.ID == "" {
			s.given++
			if id := "rule-" + strconv.Itoa(s.given); !ids[id] {
				r.ID = id
			}
		}
	}
	s.clear()
	s.rules = fresh
	return nil
}

// Name tells the set which outcomes a call knows, so that a rule with any other
// is refused.
func (s *Set) Name(call string, known func(outcome string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = map[string]func(string) bool{}
	}
	s.names[call] = known
}

// knows says whether every call of the rule that has outcomes knows the rule's,
// and there is such a call.
func (s *Set) knows(r *rule) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	some := false
	for call, known := range s.names {
		if !r.matches(call) {
			continue
		}
		if some = true; !known(r.Outcome) {
			return false
		}
	}
	return some
}

// newRule checks one rule. A reason that is not empty says what is wrong with
// which field.
func newRule(r Rule) (made *rule, field, reason string) {
	made = &rule{State: State{Rule: r}, released: make(chan struct{})}
	webhook := strings.Contains(r.Call, "webhook")
	switch {
	case r.Call == "":
		return nil, "call", "is missing"
	case strings.Contains(strings.TrimSuffix(r.Call, "*"), "*"):
		return nil, "call", "may have a * at its end only"
	case r.Do == "":
		return nil, "do", "is missing"
	case !slices.Contains(ways, r.Do):
		return nil, "do", "must be one of " + strings.Join(ways, ", ")
	case webhook && slices.Contains(notForWebhooks, r.Do):
		return nil, "do", "does not apply to a webhook, which this side sends"
	case !webhook && r.Do == Forge:
		return nil, "do", "applies to webhooks only"
	case r.Do == Status && (r.Status < 200 || r.Status > 599):
		return nil, "status", "must be from 200 to 599"
	case r.Times < 0:
		return nil, "times", "must not be negative"
	case r.Skip < 0:
		return nil, "skip", "must not be negative"
	case r.Share < 0 || r.Share > 1:
		return nil, "share", "must be above 0 and at most 1"
	}
	if field, reason := checkCode(r); reason != "" {
		return nil, field, reason
	}
	if r.Do == Delay {
		d, err := time.ParseDuration(r.Delay)
		if err != nil || d < 0 {
			return nil, "delay", "must be a duration such as 1.5s"
		}
		made.delay = d
	}
	return made, "", ""
}

// checkCode checks the fields that speak a company's language.
func checkCode(r Rule) (field, reason string) {
	speaks := r.Do == Refuse || r.Do == Fail
	switch {
	case r.Outcome != "" && r.Do != Refuse:
		return "outcome", "comes with refuse only"
	case r.Outcome != "" && (r.Code != nil || r.Status != 0):
		return "outcome", "has a code and a status of its own"
	case speaks && r.Code == nil && r.Outcome == "":
		return "code", "is missing"
	case !speaks && r.Code != nil:
		return "code", "comes with refuse and fail only"
	case r.Do == Refuse && r.Status != 0 && (r.Status < 400 || r.Status > 599):
		return "status", "must be from 400 to 599"
	case r.Do != Fail && (r.After != "" || r.Ending != ""):
		return "after", "and ending come with fail only"
	case r.After != "" && r.After != "sent" && r.After != "delivered":
		return "after", "must be sent or delivered"
	case r.Ending != "" && r.Ending != "failed" && r.Ending != "undelivered":
		return "ending", "must be failed or undelivered"
	case len(r.Headers) > 0 && r.Do != Status && r.Do != Refuse:
		return "headers", "come with status and refuse only"
	}
	return "", ""
}

var (
	ways = []string{Status, Refuse, Fail, TimeoutBefore, TimeoutAfter, HoldBefore, HoldAfter,
		DropBefore, DropAfter, Delay, Duplicate, Reorder, Drop, Forge}
	notForWebhooks = []string{Status, Refuse, Fail, TimeoutBefore, TimeoutAfter, DropAfter, HoldAfter}
)

// Clear ends all rules and releases everything they hold.
func (s *Set) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

func (s *Set) clear() {
	for _, r := range s.rules {
		r.retire()
	}
	s.rules = nil
}

// retire ends a rule; the set's lock is held.
func (r *rule) retire() {
	if !r.retired {
		r.retired = true
		close(r.released)
	}
}

// Release lets go on whatever the rule holds, and retires it: it takes no
// further call but stays listed. It reports whether there is such a rule.
func (s *Set) Release(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if r.ID == id {
			r.retire()
			return true
		}
	}
	return false
}

// Rules returns the rules in force with their counts, in the order given.
func (s *Set) Rules() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]State, 0, len(s.rules))
	for _, r := range s.rules {
		states = append(states, r.State)
	}
	return states
}

// Take returns the fault of one call and counts it: the first rule that matches
// and has turns left. A rule that still skips lets the call pass to the rules
// after it. Without any, the zero Fault does nothing.
func (s *Set) Take(call string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if r.retired || !r.matches(call) || (r.Times > 0 && r.Taken >= r.Times) {
			continue
		}
		if r.passed < r.Skip {
			r.passed++
			continue
		}
		if !r.dealt() {
			continue
		}
		r.Taken++
		return Fault{set: s, rule: r}
	}
	return Fault{}
}

// dealt says whether this call is one of the rule's share. A call is when the
// whole part of calls times share has grown with it.
func (r *rule) dealt() bool {
	r.seen++
	return r.Share == 0 || math.Floor(float64(r.seen)*r.Share) > math.Floor(float64(r.seen-1)*r.Share)
}

func (r *rule) matches(call string) bool {
	if prefix, ok := strings.CutSuffix(r.Call, "*"); ok {
		return strings.HasPrefix(call, prefix)
	}
	return r.Call == call
}

// Log appends one call to the call log, numbers it, and dates it if it has no
// time of its own.
func (s *Set) Log(c Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	c.N = s.n
	if c.At.IsZero() {
		c.At = time.Now()
	}
	c.At = c.At.UTC()
	if len(s.calls) >= longestLog {
		// Half at once, so that a long load test does not copy on every call.
		s.calls = slices.Clone(s.calls[longestLog/2:])
	}
	s.calls = append(s.calls, c)
}

// Calls returns the call log, oldest first.
func (s *Set) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Fault is what goes wrong with one call. The zero Fault lets all pass.
type Fault struct {
	set  *Set
	rule *rule
}

// Before runs when the request is known to be good and nothing has happened yet.
// True means that the call has been dealt with (a status was written, the
// connection cut, the client left) and the handler must return without effect.
func (f Fault) Before(w http.ResponseWriter, r *http.Request) bool {
	if f.rule == nil {
		return false
	}
	switch f.rule.Do {
	case Status:
		writeStatus(w, f.rule.Rule)
		return true
	case Refuse:
		// Only a company without codes of its own comes here; see Refusal.
		f.SetHeaders(w.Header())
		body := ""
		if f.rule.Code != nil {
			body = fmt.Sprintf(`{"code":%d}`, *f.rule.Code)
		}
		writeStatus(w, Rule{Status: cmp.Or(f.rule.Status, http.StatusBadRequest), Body: body})
		return true
	case TimeoutBefore:
		return f.timeOut(w, r)
	case DropBefore, Drop:
		cut(w)
		return true
	case HoldBefore:
		return f.holdRequest(w, r)
	case Delay:
		return !f.pause(r)
	}
	return false
}

// After runs when the effect has happened and no byte of the answer is written.
// True means that the call has been dealt with and the handler must return.
func (f Fault) After(w http.ResponseWriter, r *http.Request) bool {
	if f.rule == nil {
		return false
	}
	switch f.rule.Do {
	case TimeoutAfter:
		return f.timeOut(w, r)
	case DropAfter:
		cut(w)
		return true
	case HoldAfter:
		return f.holdRequest(w, r)
	}
	return false
}

// Refusal returns the company's code that the call is to be refused with, and the
// HTTP status that takes the place of the documented one, or 0. A company that
// has codes asks this before Before, and answers in its own words; SetHeaders
// gives the headers that go with it.
func (f Fault) Refusal() (code, status int, ok bool) {
	if f.rule == nil || f.rule.Do != Refuse || f.rule.Code == nil {
		return 0, 0, false
	}
	return *f.rule.Code, f.rule.Status, true
}

// Outcome returns the name of the answer that the call is to get, if a refuse
// rule has one. A company that gave names asks this before Before.
func (f Fault) Outcome() (name string, ok bool) {
	if f.rule == nil || f.rule.Do != Refuse || f.rule.Outcome == "" {
		return "", false
	}
	return f.rule.Outcome, true
}

// Forges says whether an outgoing webhook is to be signed with a key that is not
// the receiver's.
func (f Fault) Forges() bool { return f.rule != nil && f.rule.Do == Forge }

// SetHeaders puts the rule's headers, if any, on an answer.
func (f Fault) SetHeaders(h http.Header) {
	if f.rule == nil {
		return
	}
	for name, value := range f.rule.Headers {
		h.Set(name, value)
	}
}

// Failure is how a message that was accepted is to end.
type Failure struct {
	Code   int
	After  string // the last status before, sent or delivered; empty for none
	Ending string // failed, undelivered, or empty for the company's usual word
}

// Failure returns how the message of this call is to end, if a fail rule took it.
func (f Fault) Failure() (Failure, bool) {
	if f.rule == nil || f.rule.Do != Fail {
		return Failure{}, false
	}
	return Failure{Code: *f.rule.Code, After: f.rule.After, Ending: f.rule.Ending}, true
}

// Webhook says what becomes of one outgoing webhook: how many times it is sent
// (0: dropped), whether it is kept until one more has been sent, and how long it
// waits first.
func (f Fault) Webhook() (send int, hold bool, delay time.Duration) {
	if f.rule == nil {
		return 1, false, 0
	}
	switch f.rule.Do {
	case Drop, DropBefore:
		return 0, false, 0
	case Duplicate:
		return 2, false, 0
	case Reorder:
		return 1, true, 0
	case Delay:
		return 1, false, f.rule.delay
	}
	return 1, false, 0
}

// Hold keeps an outgoing webhook, under a hold_before rule, until Release or
// Clear. It reports whether the webhook may go on: false when ctx ended first.
func (f Fault) Hold(ctx context.Context) bool {
	if f.rule == nil || f.rule.Do != HoldBefore {
		return true
	}
	return f.wait(ctx, nil)
}

// timeOut keeps the request until its client gives up. A release ends it too, by
// cutting the connection: an answer after all would not be a timeout.
func (f Fault) timeOut(w http.ResponseWriter, r *http.Request) bool {
	drain(r)
	limit := time.NewTimer(longestTimeout)
	defer limit.Stop()
	f.wait(r.Context(), limit.C)
	cut(w)
	return true
}

func (f Fault) holdRequest(w http.ResponseWriter, r *http.Request) bool {
	drain(r)
	if f.wait(r.Context(), nil) {
		return false
	}
	cut(w)
	return true
}

// pause waits for the rule's delay; false when the client left first.
func (f Fault) pause(r *http.Request) bool {
	drain(r)
	timer := time.NewTimer(f.rule.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-f.rule.released:
		return true
	case <-r.Context().Done():
		return false
	}
}

// wait returns true when the rule was released, false when ctx or limit came
// first. The call counts as held meanwhile.
func (f Fault) wait(ctx context.Context, limit <-chan time.Time) bool {
	f.count(1)
	defer f.count(-1)
	select {
	case <-f.rule.released:
		return true
	case <-ctx.Done():
		return false
	case <-limit:
		return false
	}
}

func (f Fault) count(by int) {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	f.rule.Held += by
}

func writeStatus(w http.ResponseWriter, r Rule) {
	for name, value := range r.Headers {
		w.Header().Set(name, value)
	}
	if r.Body == "" || strings.HasPrefix(r.Body, "{") {
		w.Header().Set("Content-Type", "application/json")
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.WriteHeader(r.Status)
	_, _ = io.WriteString(w, r.Body) // the client may have gone, which is its own affair
}

// drain reads what is left of the body: net/http notices that a client has left
// only once the body has been read.
func drain(r *http.Request) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 8<<20)) // an unreadable body ends the same way
	}
}

// cut ends the connection without a byte of answer.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		// HTTP/2 has no connection of its own to cut; net/http resets the stream
		// and writes no stack trace for this one value.
		panic(http.ErrAbortHandler)
	}
	_ = conn.Close() // nothing can be done about a close that fails
}
