package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/simulator"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// outcomesPage is the part of docs/outcomes.md that is written by hand.
const outcomesPage = `<!-- Printed by go test ./gateway -run '^TestGeneratedOutcomes$' -update. Do not edit. -->
# What follows from each answer of CyberSource

Each row was played: a customer paid through the whole gateway, the simulated CyberSource gave this answer, and the table says
what became of it. Answers that end alike share a row. HTTP status and word of the answer come first, then the reason; *done* says
that the money moved although the answer does not say so. **→** is what it came to by itself, when the platform had been asked at
the pace of ` + "`timings`" + `; with the defaults that takes as long as the searches of a charge of unknown outcome do.

- The platform's words are CyberSource's; what is not in its reference today is here as ` + "`SOMETHING_NEW`" + `.
- A charge is never sent a second time. Where the outcome is not known, the customer is told to wait and nobody can pay again before it is.
- An operation that is unknown keeps its amount reserved and is asked after, slower and slower; it is sent again only when it surely was
  not done. A pending one is tried again. The error is the word that the API shows; *the answer's* is the answer's reason or status.
- Metrics are counted once for each charge or operation, whatever is found out later; ` + "`paythread_attempt_inquiries_total`" + ` counts the questions.
`

// outcomesWanted are the words of CyberSource's reference, and our own for what
// happens to a connection, each of which a row must have.
var outcomesWanted = strings.Fields(`AUTHORIZED PARTIAL_AUTHORIZED AUTHORIZED_PENDING_REVIEW AUTHORIZED_RISK_DECLINED PENDING_AUTHENTICATION
	PENDING_REVIEW PENDING DECLINED INVALID_REQUEST SERVER_ERROR SYSTEM_ERROR SERVER_TIMEOUT SERVICE_TIMEOUT 400 401 403 404 429 500 502 503
	AVS_FAILED CONTACT_PROCESSOR EXPIRED_CARD PROCESSOR_DECLINED INSUFFICIENT_FUND STOLEN_LOST_CARD ISSUER_UNAVAILABLE UNAUTHORIZED_CARD
	CVN_NOT_MATCH EXCEEDS_CREDIT_LIMIT INVALID_CVN BLOCKED_BY_CARDHOLDER DECLINED_CHECK BLACKLISTED_CUSTOMER SUSPENDED_ACCOUNT
	PAYMENT_REFUSED CV_FAILED INVALID_ACCOUNT GENERAL_DECLINE INVALID_MERCHANT_CONFIGURATION DECISION_PROFILE_REJECT
	SCORE_EXCEEDS_THRESHOLD PENDING_AUTHENTICATION ACH_VERIFICATION_FAILED DECISION_PROFILE_REVIEW CONSUMER_AUTHENTICATION_REQUIRED
	CONSUMER_AUTHENTICATION_FAILED ALLOWABLE_PIN_RETRIES_EXCEEDED PROCESSOR_ERROR CUSTOMER_WATCHLIST_MATCH
	ADDRESS_COUNTRY_WATCHLIST_MATCH EMAIL_COUNTRY_WATCHLIST_MATCH IP_COUNTRY_WATCHLIST_MATCH MISSING_FIELD INVALID_DATA
	DUPLICATE_REQUEST INVALID_CARD CARD_TYPE_NOT_ACCEPTED INVALID_CARD_TYPE INVALID_AMOUNT PROCESSOR_UNAVAILABLE NOT_SUPPORTED
	INVALID_PAYMENT_ID EXCEEDS_AUTH_AMOUNT AUTH_ALREADY_REVERSED TRANSACTION_ALREADY_SETTLED MISSING_AUTH
	TRANSACTION_ALREADY_REVERSED_OR_SETTLED CAPTURE_ALREADY_VOIDED ACCOUNT_NOT_ALLOWED_CREDIT NOT_VOIDABLE TRANSMITTED REVERSED VOIDED
	CANCELLED FAILED before after found accepted rejected`)

// TestGeneratedOutcomes plays every outcome of a charge and of an operation, and
// keeps docs/outcomes.md what came of them.
func TestGeneratedOutcomes(t *testing.T) {
	t.Parallel()
	b := &outcomesBench{ready: map[bool][]preparedRequest{}, last: map[string]float64{}, rig: newRig(t, aPlainRedis(t), func(o *rigOptions) {
		o.Env["MERCHANTS_ACME_CARD_TESTING_ADDRESS_TRIES"] = "100000"
		o.Env["MERCHANTS_ACME_SENDERS_ACME_SMS_PER_SECOND"] = "1000"
		o.Env["TIMINGS_AUTHENTICATE_IN"], o.Env["TIMINGS_REVIEW_ASK_EVERY"] = "2s", "500ms"
		o.Env["TIMINGS_LATE_ASK_AFTER"] = "9s,11s,13s,15s,18s,21s,25s,30s,40s"
		// An operation that is not done at once stays so: the rule that provoked it is over by then.
		o.Env["TIMINGS_RETRY_OPERATION_IN"] = "1h"
		// The search shows what it is told to show, when it is told to.
		o.World = func(_ *simulator.Config, card *cybersource.Config) { card.SearchDelay = time.Hour }
	})}
	for _, kind := range []differenceKind{missingOperation, totalsDiffer} {
		b.money.leaves(kind, "a rule lets the platform say that a hold was released before, which it was not")
	}
	b.gateway = b.startGateway()
	b.prepare(95, false)
	b.prepare(15, true)
	var page bytes.Buffer
	page.WriteString(outcomesPage)
	b.charges(&page)
	b.counts("paythread_operations_total") // what was given back by itself
	b.operations(&page)
	for _, word := range outcomesWanted {
		if !regexp.MustCompile(`(?m)^\| [^|]*\b` + word + `\b`).Match(page.Bytes()) {
			t.Errorf("no row is about %s", word)
		}
	}
	golden(t, filepath.Join("..", "docs", "outcomes.md"), page.Bytes())
}

// outcomesBench plays one outcome at a time, and waits for the ends of all of
// them together.
type outcomesBench struct {
	*rig
	gateway *gatewayProcess
	orders  int
	ready   map[bool][]preparedRequest // by whether the money is only held
	last    map[string]float64         // samples of metrics
}

// outcomeRow is one row while it is played.
type outcomeRow struct {
	answer string // what CyberSource answers
	reason string // its reason, if it has one
	cells  []string
}

// table prints rows; those with the same cells share one, under the answer of the
// first.
func (b *outcomesBench) table(page *bytes.Buffer, columns string, rows []outcomeRow) {
	b.t.Helper()
	names := strings.Split(columns, "|")
	fmt.Fprintf(page, "\n| %s |\n|%s\n", strings.Join(names, " | "), strings.Repeat(" --- |", len(names)))
	type group struct {
		answers []string
		reasons map[string][]string
	}
	var order []string
	groups := map[string]*group{}
	for _, r := range rows {
		key := strings.Join(r.cells, " | ")
		g := groups[key]
		if g == nil {
			g = &group{reasons: map[string][]string{}}
			groups[key], order = g, append(order, key)
		}
		if !slices.Contains(g.answers, r.answer) {
			g.answers = append(g.answers, r.answer)
		}
		if r.reason != "" {
			g.reasons[r.answer] = append(g.reasons[r.answer], r.reason)
		}
	}
	for _, key := range order {
		var answers []string
		for _, a := range groups[key].answers {
			if reasons := groups[key].reasons[a]; len(reasons) > 0 {
				a += ": " + strings.Join(reasons, " ")
			}
			answers = append(answers, a)
		}
		fmt.Fprintf(page, "| %s | %s |\n", strings.Join(answers, "; "), key)
	}
}

// answerWords name an outcome as the page does.
func answerWords(o cybersource.Outcome) (answer, reason string) {
	answer = strconv.Itoa(o.HTTP)
	if o.Status != "" && o.Status != answer {
		answer += " " + o.Status
	}
	if strings.HasSuffix(o.Name, "/done") {
		answer += ", *done*"
	}
	return answer, o.Reason
}

// prepare asks for payments, so that their messages arrive while others are
// played.
func (b *outcomesBench) prepare(n int, hold bool) {
	b.t.Helper()
	for range n {
		b.orders++
		c := b.payer(fmt.Sprintf("+2782124%04d", b.orders), "sms")
		id, err := b.ask(asked{Order: fmt.Sprint("outcome-", b.orders), Phone: c.phone, Channel: c.channel, Amount: "149.00", Hold: hold})
		b.must(err)
		b.ready[hold] = append(b.ready[hold], preparedRequest{id, c})
	}
}

// preparedRequest is a payment request whose customer has not opened it.
type preparedRequest struct {
	id string
	by *payer
}

// asksFor returns a payment request whose customer has the card form open.
func (b *outcomesBench) asksFor(hold bool) (string, *payer) {
	b.t.Helper()
	if len(b.ready[hold]) == 0 {
		b.prepare(1, hold)
	}
	p := b.ready[hold][0]
	b.ready[hold] = b.ready[hold][1:]
	b.await("the message on the phone", func() bool { return len(p.by.links("/p/")) > 0 })
	b.must(p.by.follow("/p/"))
	b.must(p.by.open())
	return p.id, p.by
}

// playedCharge is one charge and where it stood.
type playedCharge struct {
	outcomeRow
	id          string
	by          *payer
	first, last chargeState
	metric      string
	after       func(*playedCharge) // what happens once the attempt has settled
}

// chargeState is what everybody sees of a charge at one moment.
type chargeState struct{ attempt, request, shown, message, agent string }

// look reads it.
func (b *outcomesBench) look(p *playedCharge) chargeState {
	b.t.Helper()
	var d PaymentRequestDocument
	b.must(b.api(http.MethodGet, "/payment-requests/"+p.id, nil, nil, &d))
	var shown struct{ Title, Message string }
	status, answer, err := callBy(b.t.Context(), p.by.client, http.MethodGet, p.by.page+"/state", nil, nil)
	b.must(err)
	if status != http.StatusOK {
		b.t.Fatalf("%s: the page's state answered %d", p.answer, status)
	}
	b.must(json.Unmarshal(answer, &shown))
	s := chargeState{request: string(d.Lifecycle), shown: strings.TrimSpace(shown.Title + ". " + shown.Message), message: messagesOf(d)}
	if d.Late {
		s.request += ", late"
	}
	if n := len(d.Attempts); n > 0 {
		var states []string
		for _, a := range d.Attempts {
			states = append(states, string(a.State))
		}
		s.attempt, s.agent = strings.Join(states, " and "), d.Attempts[0].Text
	}
	return s
}

// messagesOf names the messages to the customer that followed the first.
func messagesOf(d PaymentRequestDocument) string {
	var purposes []string
	for _, m := range d.Messages {
		if p := string(m.Purpose); m.Purpose != conversations.PurposePayment && !slices.Contains(purposes, p) {
			purposes = append(purposes, p)
		}
	}
	if len(purposes) == 0 {
		return "-"
	}
	return strings.Join(purposes, ", ")
}

// charge lets a customer pay while a rule is in force.
func (b *outcomesBench) charge(answer, reason string, hold, show bool, rules ...faults.Rule) *playedCharge {
	b.t.Helper()
	p := &playedCharge{outcomeRow: outcomeRow{answer: answer, reason: reason}}
	p.id, p.by = b.asksFor(hold)
	token, err := p.by.token(panApproved)
	b.must(err)
	b.setFaults(rules...)
	_, err = p.by.charge(token)
	b.must(err)
	b.setFaults()
	if show {
		b.world.CyberSource.Index()
	}
	p.metric = b.counts("paythread_attempts_total")
	p.first = b.look(p)
	return p
}

// done tells whether nothing more will come of a charge by itself: its attempts
// are settled, or the platform was asked time and again and cannot say.
func (b *outcomesBench) done(p *playedCharge) bool {
	b.t.Helper()
	var d PaymentRequestDocument
	b.must(b.api(http.MethodGet, "/payment-requests/"+p.id, nil, nil, &d))
	for _, a := range d.Attempts {
		switch a.State {
		case conversations.AttemptUnsettled:
			return p.reason == "" && p.answer == stuckAnswer && time.Since(a.StartedAt) > stuckAfter
		case conversations.AttemptSending, conversations.AttemptAuthenticating, conversations.AttemptReversing:
			return false
		}
	}
	return true
}

// stuckAnswer is the one answer that no search explains: of the payment methods
// that end later, none of which is offered. It has been asked after often when
// stuckAfter has passed.
const (
	stuckAnswer = "201 PENDING"
	stuckAfter  = 10 * time.Second
)

// charges plays what a charge can be answered with.
func (b *outcomesBench) charges(page *bytes.Buffer) {
	b.t.Helper()
	var all []*playedCharge
	for _, o := range cybersource.Outcomes() {
		if o.Call == "cybersource.payments" {
			answer, reason := answerWords(o)
			all = append(all, b.charge(answer, reason, false, true, o.Rule()))
		}
	}
	all = append(all, b.charge("201 AUTHORIZED, of an authorization", "", true, true))
	for _, accept := range []bool{true, false} {
		word := map[bool]string{true: "accepted", false: "rejected"}[accept]
		p := b.charge("201 AUTHORIZED_PENDING_REVIEW, then "+word, "", false, true, faults.Rule{Call: "cybersource.payments", Do: faults.Refuse, Outcome: "AUTHORIZED_PENDING_REVIEW", Times: 1})
		p.after = func(p *playedCharge) { b.decide(p, accept) }
		all = append(all, p)
	}
	lost := func(do string) faults.Rule { return faults.Rule{Call: "cybersource.payments", Do: do, Times: 1} }
	all = append(all,
		b.charge("the connection is lost before anything is done", "", false, true, lost(faults.DropBefore)),
		b.charge("the connection is lost after it is done", "", false, true, lost(faults.DropAfter)),
	)
	for _, late := range []struct {
		what string
		do   func(*playedCharge)
	}{
		{"", func(*playedCharge) {}},
		{", when the merchant had cancelled", func(p *playedCharge) {
			b.must(b.api(http.MethodPost, "/payment-requests/"+p.id+"/cancel", nil, struct{}{}, nil))
		}},
		{", when the customer had paid again", func(p *playedCharge) {
			b.must(p.by.retry())
			_, err := p.by.pay(panApproved)
			b.must(err)
		}},
	} {
		p := b.charge("the connection is lost after it is done, and it is found after it counted as not made"+late.what, "", false, false, lost(faults.DropAfter))
		p.after = late.do
		all = append(all, p)
	}
	b.finish(all)
	var rows []outcomeRow
	for _, p := range all {
		both := func(first, last string) string {
			if first == last || first == "-" {
				return last
			}
			return first + " → " + last
		}
		p.cells = []string{
			both(p.first.attempt, p.last.attempt), both(p.first.request, p.last.request), both(p.first.shown, p.last.shown),
			both(p.first.message, p.last.message), both(p.first.agent, p.last.agent), p.metric,
		}
		rows = append(rows, p.outcomeRow)
	}
	page.WriteString("\n## Charges\n\nA sale of 149.00 ZAR, unless it says otherwise.\n")
	b.table(page, "CyberSource answers|attempt|payment request|the customer's page says|message to the customer|the agent reads|metric", rows)
}

// decide ends the review of a charge.
func (b *outcomesBench) decide(p *playedCharge, accept bool) {
	b.t.Helper()
	for _, made := range b.world.CyberSource.Transactions() {
		if made.Code == p.id+"-1" && !b.world.CyberSource.DecideReview(made.ID, accept) {
			b.t.Errorf("%s: %s is not under review", p.answer, made.ID)
		}
	}
}

// finish waits for every end. First everything settles by itself; then what
// people do after that is done, and everything is found.
func (b *outcomesBench) finish(all []*playedCharge) {
	b.t.Helper()
	settle := func(what string, these []*playedCharge, done func(*playedCharge) bool) {
		b.t.Helper()
		for _, p := range these {
			b.await(what+": "+p.answer+" "+p.reason, func() bool { return done(p) })
		}
	}
	settle("the charge is settled", all, b.done)
	var moved []*playedCharge
	for _, p := range all {
		if p.last = b.look(p); p.after != nil {
			moved = append(moved, p)
			p.after(p)
		}
	}
	b.world.CyberSource.Index()
	settle("late news is taken", moved, func(p *playedCharge) bool { return b.look(p) != p.last && b.done(p) && b.rested(p) })
	for _, p := range moved {
		p.last = b.look(p)
	}
}

// rested tells whether the books of a request's attempts will not change by
// themselves any more: nothing is being given back, and no charge of it is
// missing from its attempts.
func (b *outcomesBench) rested(p *playedCharge) bool {
	b.t.Helper()
	var d PaymentRequestDocument
	b.must(b.api(http.MethodGet, "/payment-requests/"+p.id, nil, nil, &d))
	if slices.ContainsFunc(d.Operations, func(o OperationDocument) bool { return o.State == conversations.OperationPending }) {
		return false
	}
	for _, made := range b.world.CyberSource.Transactions() {
		hidden := func(a AttemptDocument) bool { return a.Code == made.Code && a.State == conversations.AttemptNotFound }
		if (made.Kind == cybersource.KindSale || made.Kind == cybersource.KindAuthorization) && slices.ContainsFunc(d.Attempts, hidden) {
			return false
		}
	}
	return true
}

// counted reads the samples of a metric.
func (b *outcomesBench) counted(name string) map[string]float64 {
	b.t.Helper()
	text, err := b.gateway.samples(name)
	b.must(err)
	samples := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if sample, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && strings.HasPrefix(sample, name+"{") {
			if samples[sample+"}"], err = strconv.ParseFloat(value, 64); err != nil {
				b.t.Fatalf("the metric %s: %v", line, err)
			}
		}
	}
	return samples
}

// counts names the samples of a metric that have grown since it was asked last.
func (b *outcomesBench) counts(name string) string {
	b.t.Helper()
	var grown []string
	now := b.counted(name)
	for _, sample := range sortedKeys(now) {
		if now[sample] > b.last[sample] {
			grown = append(grown, "`"+sample+"`")
		}
		b.last[sample] = now[sample]
	}
	return strings.Join(grown, ", ")
}

// playedOp is one kind of operation and the payment request that it is tried
// on.
type playedOp struct {
	kind opKind
	id   string
}

// operations plays what each operation can be answered with.
func (b *outcomesBench) operations(page *bytes.Buffer) {
	b.t.Helper()
	titles := map[string]string{
		cybersource.KindCapture: "Captures", cybersource.KindReversal: "Reversals of what is held",
		cybersource.KindVoid: "Voids of what was taken", cybersource.KindRefund: "Refunds",
	}
	for _, kind := range opKinds {
		var rows []outcomeRow
		p := &playedOp{kind: kind}
		for _, o := range cybersource.Outcomes() {
			if o.Call == kind.call {
				answer, reason := answerWords(o)
				rows = append(rows, b.operation(p, answer, reason, o.Rule()))
			}
		}
		for _, l := range []struct{ what, do string }{{"before anything is done", faults.DropBefore}, {"after it is done", faults.DropAfter}} {
			rows = append(rows, b.operation(p, "the connection is lost "+l.what, "", faults.Rule{Call: kind.call, Do: l.do, Times: 1}))
		}
		fmt.Fprintf(page, "\n## %s\n", titles[kind.name])
		b.table(page, "CyberSource answers|operation|error|payment request|message to the customer|the agent reads|metric", rows)
	}
}

// operation asks for one operation while a rule is in force. A payment request
// serves for as many as leave it as it was.
func (b *outcomesBench) operation(p *playedOp, answer, reason string, rule faults.Rule) outcomeRow {
	b.t.Helper()
	if p.id == "" {
		var c *payer
		p.id, c = b.asksFor(p.kind.hold)
		_, err := c.pay(panApproved)
		b.must(err)
		b.awaitLifecycle(p.id, "paid", "authorized")
	}
	b.setFaults(rule)
	body := map[string]any{}
	if p.kind.amount != "" {
		body["amount"] = map[string]string{"value": "1.00", "currency": "ZAR"}
	}
	b.must(b.api(http.MethodPost, "/payment-requests/"+p.id+"/"+p.kind.action, nil, body, nil))
	var d PaymentRequestDocument
	var op OperationDocument
	b.await("the operation is answered: "+answer, func() bool {
		b.must(b.api(http.MethodGet, "/payment-requests/"+p.id, nil, nil, &d))
		op = d.Operations[len(d.Operations)-1]
		return op.State != conversations.OperationPending || op.Error != ""
	})
	metric := b.counts("paythread_operations_total")
	b.setFaults()
	whole := p.kind.amount == ""
	if op.State == conversations.OperationSucceeded || whole && (op.State != conversations.OperationFailed || op.Error == conversations.ErrorSettled) {
		p.id = "" // the next one needs another
	}
	said := cmp.Or(op.Error, "-")
	if said == reason || strings.HasPrefix(said, "HTTP_") || strings.Contains(answer, " "+said) {
		said = "the answer's"
	}
	return outcomeRow{answer: answer, reason: reason, cells: []string{string(op.State), said, string(d.Lifecycle), messagesOf(d), op.Text, metric}}
}
