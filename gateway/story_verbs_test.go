package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// tale is one story while it is told: the people in it and what they have seen
// so far. Everybody acts over HTTP as they would in life.
type tale struct {
	t *testing.T
	*stage
	at     string // the line that is being played
	client *http.Client

	order    map[string]any // as the shop sells it
	token    string         // of the agent's session
	requests []*watched     // in the order they were asked for
	heard    int            // messages on the phone that were dealt with
	page     openPage       // what the customer's browser shows
	paid     []string       // states that charges answered with
}

// openPage is a pay page in the customer's browser.
type openPage struct {
	url, nonce, context, text string
}

func newTale(t *testing.T, s *stage) *tale {
	return &tale{t: t, stage: s, client: plainClient(t)}
}

// fail ends the story, with the line and what the agent and the phone show.
func (s *tale) fail(format string, values ...any) {
	s.t.Helper()
	var shown strings.Builder
	for i, w := range s.requests {
		fmt.Fprintf(&shown, "\n  request %d: %s", i+1, strings.Join(w.types(), " "))
	}
	for _, m := range s.outside.Phones.Messages(demoCustomer) {
		fmt.Fprintf(&shown, "\n  phone: %s %s %q", m.Channel, m.Direction, m.Text)
	}
	s.t.Fatalf("%s\n%s\nat that time:%s", s.at, fmt.Sprintf(format, values...), shown.String())
}

// await waits until something holds; what tells it when it never does.
func (s *tale) await(what string, holds func() bool) {
	s.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			s.fail("waited in vain: %s", what)
		}
	}
}

// response is an answer over HTTP, read to its end.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (r response) into(s *tale, v any) {
	s.t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		s.fail("an answer that is not JSON: %v", err)
	}
}

// problem returns the detail and reason of a refusal.
func (r response) problem(s *tale) (detail, reason string) {
	s.t.Helper()
	var p struct{ Detail, Reason string }
	r.into(s, &p)
	return p.Detail, p.Reason
}

// call makes one call and fails the story if no answer comes.
func (s *tale) call(method, to string, header http.Header, body any) response {
	s.t.Helper()
	r, err := s.tryCall(method, to, header, body)
	if err != nil {
		s.fail("no answer: %v", err)
	}
	return r
}

func (s *tale) tryCall(method, to string, header http.Header, body any) (response, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return response{}, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, to, in)
	if err != nil {
		return response{}, err
	}
	if header != nil {
		req.Header = header.Clone()
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = resp.Body.Close() }() // it has been read
	b, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, b}, err
}

// want fails the story unless the answer has that status.
func (s *tale) want(r response, status int) response {
	s.t.Helper()
	if r.status != status {
		s.fail("got status %d, want %d: %s", r.status, status, r.body)
	}
	return r
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// ---- the agent and the shop ----

// money is an amount in the API's form.
type apiMoney struct {
	Value    string `json:"value"`
	Currency string `json:"currency"`
}

func moneyOf(words string) apiMoney {
	value, currency, _ := strings.Cut(words, " ")
	return apiMoney{value, currency}
}

// sell makes the order that is asked for, all of it in one line.
func (s *tale) sell(amount, order string) {
	total := moneyOf(amount)
	nothing := apiMoney{"0.00", total.Currency}
	s.order = map[string]any{
		"order": order, "subtotal": total, "tax": nothing, "total": total, "phone": demoCustomer, "country": "ZA", "customer_name": "Thandi Nkosi",
		"line_items": []map[string]any{{"name": "Service", "quantity": 1, "unit_price": total, "total": total}},
	}
}

// openSession has the shop's server open the agent's session for the order.
func (s *tale) openSession() {
	s.t.Helper()
	r := s.want(s.call(http.MethodPost, s.public+"/v1/agent-sessions", bearer(demoAPIKey), map[string]any{
		"agent": map[string]string{"id": "ag7", "name": "Thandi"}, "order": s.order,
	}), http.StatusCreated)
	var session struct{ Token string }
	r.into(s, &session)
	s.token = session.Token
}

func (s *tale) agentAsks(w []string) {
	s.sell(w[0], w[1])
	s.openSession()
	s.agentAsksAgain(w[2:])
}

func (s *tale) agentAsksAgain(w []string) {
	s.follow(s.want(s.ask(w[0]), http.StatusCreated))
}

func (s *tale) ask(channel string) response {
	return s.call(http.MethodPost, s.public+"/v1/payment-requests", bearer(s.token), map[string]string{"phone": "082 123 4567", "channel": channel})
}

func (s *tale) agentCannotAsk(w []string) {
	r := s.want(s.ask(w[0]), http.StatusConflict)
	if detail, _ := r.problem(s); !strings.Contains(detail, w[1]) {
		s.fail("got the refusal %q, want one with %q", detail, w[1])
	}
}

func (s *tale) shopAsks(w []string) {
	s.sell(w[0], w[1])
	s.openSession() // the agent looks at it in the panel
	body := map[string]any{"channel": w[2], "time_to_open_seconds": s.number(w[3]), "time_to_pay_seconds": s.number(w[4])}
	for k, v := range s.order {
		body[k] = v
	}
	s.follow(s.want(s.call(http.MethodPost, s.public+"/v1/payment-requests", bearer(demoAPIKey), body), http.StatusCreated))
}

func (s *tale) number(word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		s.fail("%q is not a number", word)
	}
	return n
}

// requestState is what the API says of a payment request.
type requestState struct {
	ID        string
	Lifecycle string
	Reason    string
	Late      bool
	LastEvent int64 `json:"last_event"`
	Total     apiMoney
	Messages  []struct{ Purpose, Status string }
	Attempts  []struct{ State string }
}

// String is the state as a story says it.
func (r requestState) String() string {
	state := r.Lifecycle
	if r.Reason != "" {
		state += " (" + r.Reason + ")"
	}
	if r.Late {
		state += ", late"
	}
	return state
}

// follow begins to watch a request that was just made.
func (s *tale) follow(r response) {
	s.t.Helper()
	var made requestState
	r.into(s, &made)
	w := newWatched(s, made.ID)
	s.requests = append(s.requests, w)
}

func (s *tale) current() *watched {
	s.t.Helper()
	if len(s.requests) == 0 {
		s.fail("nothing was asked for yet")
	}
	return s.requests[len(s.requests)-1]
}

// state reads a request as the token may.
func (s *tale) state(id, token string) requestState {
	s.t.Helper()
	var state requestState
	s.want(s.call(http.MethodGet, s.public+"/v1/payment-requests/"+id, bearer(token), nil), http.StatusOK).into(s, &state)
	return state
}

// eventNames are the types in a story's words: "receipt sent, then receipt viewed".
func eventNames(words string) []string {
	var names []string
	for _, name := range strings.Split(words, ", then ") {
		names = append(names, strings.ReplaceAll(name, " ", "_"))
	}
	return names
}

// agentSees waits for events in this order, after those seen before.
func (s *tale) agentSees(w []string) {
	watch := s.current()
	for _, name := range eventNames(w[0]) {
		s.await("the agent to see "+name, func() bool { return watch.advance(func(e agentEvent) bool { return e.Type == name }) })
	}
}

// agentHasSeen counts events from the beginning on.
func (s *tale) agentHasSeen(w []string) {
	name, watch := eventNames(w[0])[0], s.current()
	want := map[string]int{"never": 0, "once": 1, "twice": 2}[w[1]]
	if n, ok := strings.CutSuffix(w[1], " times"); ok {
		want = s.number(n)
	}
	s.catchUp(watch)
	if got := watch.count(name); got != want {
		s.fail("the agent saw %s %d times, want %d", name, got, want)
	}
}

// catchUp waits until the stream has brought all that was logged by now.
func (s *tale) catchUp(watch *watched) {
	s.t.Helper()
	last := s.state(watch.id, demoAPIKey).LastEvent
	s.await(fmt.Sprintf("event %d on the stream", last), func() bool { return watch.last() >= last })
}

func (s *tale) agentIsTold(w []string) {
	watch := s.current()
	s.await("a sentence to the agent with "+w[0], func() bool {
		return watch.advance(func(e agentEvent) bool { return strings.Contains(e.Text, w[0]) })
	})
}

func (s *tale) agentFinds(w []string) { s.finds(s.current().id, s.token, w[0]) }

func (s *tale) shopFinds(w []string) {
	s.finds(s.requests[map[string]int{"first": 0, "second": 1}[w[0]]].id, demoAPIKey, w[1])
}

func (s *tale) finds(id, token, want string) {
	s.t.Helper()
	var got string
	deadline := time.Now().Add(patience)
	s.await("the request to be "+want, func() bool {
		if got = s.state(id, token).String(); got != want && time.Now().After(deadline.Add(-time.Second)) {
			s.fail("the request is %s, want %s", got, want)
		}
		return got == want
	})
}

// shopRefunds gives back an amount, or all that is left.
func (s *tale) shopRefunds(w []string) {
	body := map[string]any{"reason": "goods came back"}
	if len(w) > 0 {
		body["amount"] = moneyOf(w[0])
	}
	s.want(s.call(http.MethodPost, s.public+"/v1/payment-requests/"+s.current().id+"/refund", bearer(demoAPIKey), body), http.StatusOK)
}

func (s *tale) press(action string) response {
	return s.call(http.MethodPost, s.public+"/v1/payment-requests/"+s.current().id+"/"+action, bearer(s.token), struct{}{})
}

func (s *tale) agentPresses(w []string) { s.want(s.press(w[0]), http.StatusOK) }

func (s *tale) agentCannotPress(w []string) {
	r := s.want(s.press(w[0]), http.StatusConflict)
	if _, reason := r.problem(s); reason != w[1] {
		s.fail("got the reason %q, want %q", reason, w[1])
	}
}

// ---- what the agent's stream brings ----

type agentEvent struct {
	Seq       int64
	Type      string
	Lifecycle string
	Text      string
}

// watched is one payment request's stream, as the panel keeps it: connected
// again from the last event whenever it breaks. The end of the test ends it.
type watched struct {
	id    string
	from  string
	token string

	mu     sync.Mutex
	events []agentEvent
	seen   int // events that the story is past
	wrong  []string
}

func newWatched(s *tale, id string) *watched {
	w := &watched{id: id, from: s.public + "/v1/payment-requests/" + id + "/events", token: s.token}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	s.t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *watched) run(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil && w.connect(ctx, client) {
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// connect reads the stream until it breaks, and tells whether to come back.
func (w *watched) connect(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.from, nil)
	if err != nil {
		w.note("make a stream's request: %v", err)
		return false
	}
	req.Header = bearer(w.token)
	req.Header.Set("Accept", "text/event-stream")
	if last := w.last(); last > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(last, 10))
	}
	resp, err := client.Do(req)
	if err != nil {
		return true // the gateway restarts
	}
	defer func() { _ = resp.Body.Close() }() // the stream is over
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusServiceUnavailable:
		return true // it is about to stop
	case http.StatusNotFound:
		return false // a session loses sight of a request that another took over from
	default:
		w.note("the stream answered %d", resp.StatusCode)
		return false
	}
	for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
		if data, ok := strings.CutPrefix(scan.Text(), "data: "); ok {
			w.take(data)
		}
	}
	return true
}

// take keeps an event. The log has neither gaps nor repeats, whatever happened
// to the connection.
func (w *watched) take(data string) {
	var e agentEvent
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		w.note("an event that is not JSON: %v", err)
		return
	}
	if want := w.last() + 1; e.Seq != want {
		w.note("got event %d (%s), want %d", e.Seq, e.Type, want)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *watched) note(format string, values ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, values...))
}

func (w *watched) last() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) == 0 {
		return 0
	}
	return w.events[len(w.events)-1].Seq
}

func (w *watched) types() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var types []string
	for _, e := range w.events {
		types = append(types, e.Type)
	}
	return types
}

func (w *watched) count(name string) (n int) {
	for _, t := range w.types() {
		if t == name {
			n++
		}
	}
	return n
}

// advance goes past the next event that fits, if it has come.
func (w *watched) advance(fits func(agentEvent) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.events[w.seen:], fits)
	if i < 0 {
		return false
	}
	w.seen += i + 1
	return true
}

// ---- the customer's phone ----

func (s *tale) phone(action string) string {
	return s.outside.URL + "/phones/" + strings.TrimPrefix(demoCustomer, "+") + "/" + action
}

// inbox returns what the phone has received, oldest first.
func (s *tale) inbox() []simulator.Message {
	s.t.Helper()
	var thread struct{ Messages []simulator.Message }
	s.want(s.call(http.MethodGet, s.phone("messages"), nil, nil), http.StatusOK).into(s, &thread)
	return slices.DeleteFunc(thread.Messages, func(m simulator.Message) bool { return m.Direction != simulator.Received })
}

// receive waits for the next message that fits and goes past it.
func (s *tale) receive(what string, fits func(simulator.Message) bool) {
	s.t.Helper()
	s.await(what, func() bool {
		inbox := s.inbox()
		i := slices.IndexFunc(inbox[s.heard:], fits)
		if i < 0 {
			return false
		}
		s.heard += i + 1
		return true
	})
}

// messageMarks tell the messages apart, as a customer would.
var messageMarks = map[string]func(simulator.Message) bool{
	"payment":      func(m simulator.Message) bool { return linkOf(m, "/p/") != "" },
	"receipt":      func(m simulator.Message) bool { return linkOf(m, "/r/") != "" && !tellsOfRefund(m) },
	"refund":       func(m simulator.Message) bool { return linkOf(m, "/r/") != "" && tellsOfRefund(m) },
	"cancellation": func(m simulator.Message) bool { return strings.Contains(m.Text, "was cancelled") },
}

func tellsOfRefund(m simulator.Message) bool { return strings.Contains(m.Text, "we returned") }

func linkOf(m simulator.Message, kind string) string {
	for _, l := range m.Links {
		if strings.Contains(l, kind) {
			return l
		}
	}
	return ""
}

func (s *tale) customerReceives(w []string) {
	s.receive("the "+w[0]+" message by "+w[1], func(m simulator.Message) bool { return m.Channel == w[1] && messageMarks[w[0]](m) })
}

func (s *tale) customerHasReceived(w []string) {
	got := 0
	for _, m := range s.inbox() {
		if m.Channel == w[1] {
			got++
		}
	}
	if want := s.number(w[0]); got != want {
		s.fail("the phone has %d messages by %s, want %d", got, w[1], want)
	}
}

func (s *tale) customerReads([]string) {
	s.want(s.call(http.MethodPost, s.phone("read"), nil, struct{}{}), http.StatusNoContent)
}

func (s *tale) customerWrites(w []string) {
	s.heard = len(s.inbox()) // whatever comes next answers this
	s.want(s.call(http.MethodPost, s.phone("messages"), nil, map[string]string{"channel": w[1], "text": w[0]}), http.StatusCreated)
}

func (s *tale) customerIsAnswered(w []string) {
	s.receive("an answer with "+w[0], func(m simulator.Message) bool { return strings.Contains(m.Text, w[0]) })
}

func (s *tale) customerSwitches(w []string) {
	s.want(s.call(http.MethodPost, s.phone("unreachable"), nil, map[string]bool{"on": w[0] == "off"}), http.StatusNoContent)
}

func (s *tale) customerLeavesWhatsApp([]string) {
	s.want(s.call(http.MethodPost, s.phone("whatsapp"), nil, map[string]bool{"on": false}), http.StatusNoContent)
}

// ---- the customer's browser ----

// visit follows a link to its page, as a browser does.
func (s *tale) visit(link string) {
	s.t.Helper()
	r := s.want(s.call(http.MethodGet, link, nil, nil), http.StatusSeeOther)
	s.page = openPage{url: r.header.Get("Location")}
	shown := s.want(s.call(http.MethodGet, s.page.url, nil, nil), http.StatusOK).body
	s.page.text = strings.ReplaceAll(html.UnescapeString(string(shown)), "\u00a0", " ")
	found := nonceInPage.FindSubmatch(shown)
	if found == nil {
		s.fail("the page behind the link has no nonce")
	}
	s.page.nonce = string(found[1])
}

// links returns the links of a kind in the order their messages came.
func (s *tale) links(kind string) []string {
	s.t.Helper()
	var links []string
	for _, m := range s.inbox() {
		if l := linkOf(m, kind); l != "" {
			links = append(links, l)
		}
	}
	if len(links) == 0 {
		s.fail("no message on the phone has a link with %s", kind)
	}
	return links
}

func (s *tale) newestLink(kind string) string {
	links := s.links(kind)
	return links[len(links)-1]
}

// pressOn makes a call as the page's own script does.
func (s *tale) pressOn(what string, body any) response {
	s.t.Helper()
	return s.call(http.MethodPost, s.page.url+"/"+what, http.Header{"Origin": {s.public}, "X-Paythread-Nonce": {s.page.nonce}}, body)
}

// customerLooks fetches link and page without pressing anything: that changes
// nothing, and the agent learns nothing of it.
func (s *tale) customerLooks([]string) {
	before := s.state(s.current().id, demoAPIKey)
	s.visit(s.newestLink("/p/"))
	if after := s.state(s.current().id, demoAPIKey); after.LastEvent != before.LastEvent || after.Lifecycle != before.Lifecycle {
		s.fail("looking changed the request from %s, event %d, to %s, event %d", before, before.LastEvent, after, after.LastEvent)
	}
}

func (s *tale) customerOpens([]string) { s.openPage(s.newestLink("/p/")) }

func (s *tale) customerOpensNth(w []string) {
	s.visit(s.links("/p/")[map[string]int{"first": 0, "second": 1}[w[0]]])
	r := s.pressOn("open", struct{}{})
	s.keepContext(r)
}

// openPage shows the page and presses its button, where there is one.
func (s *tale) openPage(link string) {
	s.t.Helper()
	s.visit(link)
	s.keepContext(s.pressOn("open", struct{}{}))
}

// keepContext takes the capture context of an answer. A request that cannot be
// paid has none, and the page says why.
func (s *tale) keepContext(r response) bool {
	s.t.Helper()
	if r.status == http.StatusConflict {
		return false
	}
	var opened struct{ Context string }
	s.want(r, http.StatusOK).into(s, &opened)
	s.page.context = opened.Context
	return true
}

// customerSees waits until the page, loaded again, has the words.
func (s *tale) customerSees(w []string) {
	var text string
	deadline := time.Now().Add(patience - time.Second)
	s.await("the page to say "+w[0], func() bool {
		text = html.UnescapeString(string(s.want(s.call(http.MethodGet, s.page.url, nil, nil), http.StatusOK).body))
		main, _, _ := strings.Cut(text, "</main>") // what follows are the script's templates
		if !strings.Contains(main, w[0]) && time.Now().After(deadline) {
			s.fail("the page does not say %q but: %s", w[0], main[max(0, strings.Index(main, "<main")):])
		}
		return strings.Contains(main, w[0])
	})
}

// storyCards are the test cards by what becomes of them.
var storyCards = map[string]string{
	"approved":                   "4111111111111111",
	"declined":                   "4000000000000002",
	"declined for lack of funds": "4000000000009995",
	"approved for half":          "4012888888881881",
	"held for review":            "4000000000009235",
}

// tokenFor types a card into the platform's form.
func (s *tale) tokenFor(card string) string {
	s.t.Helper()
	number, ok := storyCards[card]
	if !ok {
		s.fail("no test card is %s", card)
	}
	if s.page.context == "" {
		s.fail("the page shows no card form")
	}
	r := s.call(http.MethodPost, s.outside.URL+"/cybersource/transient-tokens", nil, map[string]any{
		"captureContext": s.page.context,
		"card":           map[string]string{"number": number, "expirationMonth": "12", "expirationYear": strconv.Itoa(time.Now().Year() + 2), "securityCode": "123"},
	})
	var entered struct{ TransientToken string }
	if r.status/100 != 2 {
		s.fail("the card form answered %d: %s", r.status, r.body)
	}
	r.into(s, &entered)
	return entered.TransientToken
}

func (s *tale) customerPays(w []string) {
	if len(s.paid) > 0 && !s.keepContext(s.pressOn("context", struct{}{})) { // "Try again"
		s.fail("the page does not let the customer try again")
	}
	token := s.tokenFor(w[0])
	s.paid = append(s.paid, string(s.want(s.pressOn("charge", map[string]string{"transient_token": token}), http.StatusOK).body))
}

// customerPaysTwice sends the same card from a button that was pressed twice
// and from a second tab.
func (s *tale) customerPaysTwice(w []string) {
	first := s.tokenFor(w[0])
	s.keepContext(s.pressOn("context", struct{}{}))
	second := s.tokenFor(w[0])
	var presses sync.WaitGroup
	answers := make(chan error, 3)
	for _, token := range []string{first, first, second} {
		presses.Go(func() {
			r, err := s.tryCall(http.MethodPost, s.page.url+"/charge", http.Header{"Origin": {s.public}, "X-Paythread-Nonce": {s.page.nonce}},
				map[string]string{"transient_token": token})
			if err == nil && r.status != http.StatusOK && r.status != http.StatusConflict {
				err = fmt.Errorf("got status %d: %s", r.status, r.body)
			}
			answers <- err
		})
	}
	presses.Wait()
	close(answers)
	for err := range answers {
		if err != nil {
			s.fail("a press on the button: %v", err)
		}
	}
}

// customerCannotPay presses the button once more and is told why not.
func (s *tale) customerCannotPay(w []string) {
	for _, what := range []string{"open", "context"} {
		r := s.want(s.pressOn(what, struct{}{}), http.StatusConflict)
		var state struct{ Title, Message string }
		r.into(s, &state)
		if !strings.Contains(state.Title+" "+state.Message, w[0]) {
			s.fail("got %q, want %q", state.Title+" "+state.Message, w[0])
		}
	}
}

func (s *tale) customerExtends([]string) { s.want(s.pressOn("extend", struct{}{}), http.StatusOK) }

// customerOpensReceipt looks at the receipt and touches the page.
func (s *tale) customerOpensReceipt([]string) {
	s.visit(s.newestLink("/r/"))
	if r := s.pressOn("viewed", struct{}{}); r.status/100 != 2 {
		s.fail("the receipt's page answered %d: %s", r.status, r.body)
	}
}

// customerFindsOnReceipt reads the receipt once more.
func (s *tale) customerFindsOnReceipt(w []string) {
	s.await("the receipt to say "+w[0], func() bool {
		s.visit(s.newestLink("/r/"))
		return strings.Contains(s.page.text, w[0])
	})
}

// ---- the companies ----

func (s *tale) goWrong(rules ...faults.Rule) {
	s.t.Helper()
	s.want(s.call(http.MethodPut, s.outside.URL+"/faults", nil, rules), http.StatusOK)
}

func (s *tale) providerRepeats([]string) {
	s.goWrong(faults.Rule{Call: "meta.webhook.*", Do: "duplicate"}, faults.Rule{Call: "twilio.webhook.*", Do: "duplicate"})
}

func (s *tale) providerIsSilent([]string) {
	s.goWrong(faults.Rule{Call: "meta.webhook.status", Do: "drop"})
}

func (s *tale) providerReorders([]string) {
	s.goWrong(faults.Rule{Call: "meta.webhook.status", Do: "reorder", Times: 1}, faults.Rule{Call: "twilio.webhook.status", Do: "reorder", Times: 1})
}

// platformLosesAnswer cuts the connection when the payment is made and its
// answer is due.
func (s *tale) platformLosesAnswer([]string) {
	s.goWrong(faults.Rule{Call: "cybersource.payments", Do: "drop_after", Times: 1})
}

func (s *tale) platformShows([]string) {
	s.want(s.call(http.MethodPost, s.outside.URL+"/cybersource/advance", nil, map[string]bool{"index": true}), http.StatusOK)
}

// ledger sums up what the platform really did: the payments, and those among
// them that were given back, in one step or in several.
func (s *tale) ledger() (taken, back int) {
	s.t.Helper()
	var all []cybersource.Transaction
	s.want(s.call(http.MethodGet, s.outside.URL+"/cybersource/transactions", nil, nil), http.StatusOK).into(s, &all)
	returned := map[string]bool{}
	for _, t := range all {
		switch t.Kind {
		case cybersource.KindSale, cybersource.KindAuthorization:
			taken++
		case cybersource.KindVoid, cybersource.KindReversal, cybersource.KindRefund:
			returned[t.ParentID] = true
		}
	}
	return taken, len(returned)
}

func (s *tale) bankShows(w []string) {
	wantTaken, wantBack := s.number(w[0]), s.number(w[1])
	s.await(fmt.Sprintf("%d payments at the bank and %d given back", wantTaken, wantBack), func() bool {
		taken, back := s.ledger()
		return taken == wantTaken && back == wantBack
	})
}

func (s *tale) gatewayRestarts([]string) { s.restartGateway() }

// ---- the end ----

// close holds the end of every story against what must always be true: the
// stream was the log, without gap or repeat; whoever paid got a receipt or the
// agent sees that it failed; nobody was left charged twice; and the gateway's
// log tells no secrets.
func (s *tale) close() {
	s.t.Helper()
	for _, w := range s.requests {
		s.closeRequest(w)
	}
	taken, back := s.ledger()
	if taken-back > 1 {
		s.fail("the customer is left charged twice: %d payments, %d given back", taken, back)
	}
	logged := s.logged.String()
	for what, secret := range map[string]string{
		"API key": demoAPIKey, "access token": demoMeta.AccessToken, "auth token": demoTwilio.AuthToken, "shared secret": demoCyberSource.SharedSecret,
		"phone number": strings.TrimPrefix(demoCustomer, "+"), "card number": storyCards["approved"], "session token": s.token,
	} {
		if secret != "" && strings.Contains(logged, secret) {
			s.t.Errorf("%s: the log has the %s in it", s.at, what)
		}
	}
}

func (s *tale) closeRequest(w *watched) {
	s.t.Helper()
	logged := s.log(w.id)
	if slices.ContainsFunc(logged, func(t string) bool { return t == "paid" || t == "authorized" || t == "late_payment" }) {
		s.await("a receipt message, or its failure", func() bool {
			logged = s.log(w.id)
			return slices.ContainsFunc(logged, func(t string) bool { return t == "receipt_sent" || t == "receipt_delivered" || t == "message_failed" })
		})
	}
	if w == s.current() {
		s.await("the whole log on the stream", func() bool { return len(w.types()) >= len(logged) })
		if got := w.types()[:len(logged)]; !slices.Equal(got, logged) {
			s.fail("the stream brought\n  %v\nand the log is\n  %v", got, logged)
		}
	}
	w.mu.Lock()
	wrong := slices.Clone(w.wrong)
	w.mu.Unlock()
	if len(wrong) > 0 {
		s.fail("the stream went wrong: %s", strings.Join(wrong, "; "))
	}
}

// log returns the types of a request's events, as the shop's server reads them.
func (s *tale) log(id string) (types []string) {
	s.t.Helper()
	header := bearer(demoAPIKey)
	header.Set("Accept", "application/json")
	var page struct{ Items []agentEvent }
	s.want(s.call(http.MethodGet, s.public+"/v1/payment-requests/"+id+"/events?limit=100", header, nil), http.StatusOK).into(s, &page)
	for _, e := range page.Items {
		types = append(types, e.Type)
	}
	return types
}
