package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/conversations/redistest"
	"paythread/simulator"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// A crash test tells the whole story of one payment: the agent asks, the
// customer opens the link, pays and views the receipt. Somewhere in it the
// gateway is killed, at a moment that is held open by a proxy before Redis or by
// the simulated company, and started again. Nobody helps it: the people only do
// what people do, which is to press once more when nothing came of it. Then what
// really happened is held against what Paythread says.

// step is what a person does when the gateway dies.
type step int

const (
	asking  step = iota // the agent asks for the payment; its message goes out
	opening             // the customer presses the page's first button
	paying              // the customer pays; the receipt's message goes out
	waiting             // nobody does anything: the gateway asks the platform what became of a charge
)

// gap is one moment in which the gateway is killed.
type gap struct {
	name string
	at   step

	// What holds the moment open: the commit of an event, whose keys have this
	// ending if one is given, or a company's call.
	commit, key string
	call        string
	when        redistest.When
	late        bool // the commit, or its answer, still arrives after the gateway's death

	// What happened before that.
	card     string // of the customer's first try; panApproved if empty
	lost     bool   // the charge's first answer was lost on the line
	loseEcho int    // so many statuses of the first message never arrive
	lags     bool   // the platform's search shows the charge after the last question only
	beside   bool   // another gateway runs, which nobody kills: none is started again

	// What is there in the end.
	log      []string // the event log
	payments int      // payment messages on the phone, if not 1
}

// The log of a story in which nothing goes wrong, in its parts.
var (
	logToCard     = []string{"created", "sent", "delivered", "opened", "checkout_started"}
	logReceipt    = []string{"receipt_sent", "receipt_delivered", "receipt_viewed"}
	logPaid       = []string{"attempt_started", "paid"}
	logUneventful = slices.Concat(logToCard, logPaid, logReceipt)
	// The charge was made, and nobody knew: the platform was asked.
	logAskedAfter = slices.Concat(logToCard, []string{"attempt_started", "attempt_unsettled", "paid"}, logReceipt)
	// The charge was allowed and never made; once that was sure, the customer
	// paid again.
	logNeverMade = slices.Concat(logToCard, []string{"attempt_started", "attempt_unsettled", "attempt_not_found"}, logPaid, logReceipt)
	// The money was held and refused by risk rules; when it was given back, the
	// customer paid with another card.
	logGivenBack = slices.Concat(logToCard, []string{"attempt_started", "reversal_started", "declined"}, logPaid, logReceipt)
	// Nobody knew for a while whether it was given back.
	logGivenBackLate = slices.Concat(logToCard, []string{"attempt_started", "reversal_started", "operation_unknown", "declined"}, logPaid, logReceipt)
	// The charge was made, and could not be found until long after the customer
	// had paid again.
	logSecondSuccess = slices.Concat(logNeverMade, []string{"reversal_started", "reversed"})
)

// paymentMessage and receiptMessage are how the keys of the first two messages
// of a payment request end.
const (
	paymentMessage = "-1"
	receiptMessage = "-2"
)

// messageGaps are the gaps between the commits and the call of one message,
// whose key ends so. None of them shows in the log: a message that was not sent
// is sent, and one that was sent is recognised by its echo.
func messageGaps(channel string, at step, message string) []gap {
	call := map[string]string{"whatsapp": "meta.messages", "sms": "twilio.messages"}[channel]
	gaps := []gap{
		{name: "sending not committed", commit: "SendingStarted", key: message, when: redistest.Before},
		{name: "sending committed late", commit: "SendingStarted", key: message, when: redistest.Before, late: true},
		{name: "sending committed, its answer lost", commit: "SendingStarted", key: message, when: redistest.After},
		{name: "provider not reached", call: call, when: redistest.Before},
		{name: "provider reached, its answer lost", call: call, when: redistest.After},
		{name: "answer not committed", commit: "MessageAnswered", key: message, when: redistest.Before},
		{name: "answer committed late", commit: "MessageAnswered", key: message, when: redistest.Before, late: true},
		{name: "answer committed, unknown to its process", commit: "MessageAnswered", key: message, when: redistest.After},
	}
	for i := range gaps {
		gaps[i].at, gaps[i].log = at, logUneventful
	}
	return gaps
}

// requestGaps are the gaps around the making of a payment request. The agent's
// panel repeats its call with the same Idempotency-Key.
var requestGaps = []gap{
	{name: "request not committed", at: asking, commit: "Created", when: redistest.Before, log: logUneventful},
	{name: "request committed late", at: asking, commit: "Created", when: redistest.Before, late: true, log: logUneventful},
	{name: "request committed, its answer lost", at: asking, commit: "Created", when: redistest.After, log: logUneventful},
}

// echoGaps are those in which no echo says whether the message was sent. Meta
// cannot be asked: only there a second message may be left on the phone. Twilio
// can, and says at once that it was delivered.
func echoGaps(channel string) []gap {
	g := gap{name: "provider reached, its answer and its echo lost", at: asking, when: redistest.After, log: logUneventful}
	switch channel {
	case "whatsapp":
		g.call, g.loseEcho, g.payments = "meta.messages", 1, 2 // sent; the phone is off, so nothing more is reported
	case "sms":
		g.call, g.loseEcho, g.log = "twilio.messages", 2, filterOut(logUneventful, "sent") // sent and delivered
	}
	return []gap{g}
}

// openingGaps are the gaps behind the page's first button. The customer presses
// it again.
var openingGaps = []gap{
	{name: "opening not committed", at: opening, commit: "LinkOpened", when: redistest.Before, log: logUneventful},
	{name: "opening committed, its answer lost", at: opening, commit: "LinkOpened", when: redistest.After, log: logUneventful},
	{name: "capture context not made", at: opening, call: "cybersource.sessions", when: redistest.Before, log: logUneventful},
	{name: "capture context made, its answer lost", at: opening, call: "cybersource.sessions", when: redistest.After, log: logUneventful},
	{name: "capture context not committed", at: opening, commit: "ContextIssued", when: redistest.Before, log: logUneventful},
	{name: "capture context committed, its answer lost", at: opening, commit: "ContextIssued", when: redistest.After, log: logUneventful},
}

// chargeGaps are the gaps between the commits and the call of a charge.
var chargeGaps = []gap{
	// Nothing was allowed: the customer simply pays again.
	{name: "attempt not committed", at: paying, commit: "AttemptStarted", when: redistest.Before, log: logUneventful},
	// The right to charge died with its process, whoever knew of it.
	{name: "attempt committed late", at: paying, commit: "AttemptStarted", when: redistest.Before, late: true, log: logNeverMade},
	{name: "attempt committed, its answer lost", at: paying, commit: "AttemptStarted", when: redistest.After, log: logNeverMade},
	{name: "platform not reached", at: paying, call: "cybersource.payments", when: redistest.Before, log: logNeverMade},
	{name: "platform reached, its answer lost", at: paying, call: "cybersource.payments", when: redistest.After, log: logAskedAfter},
	{name: "outcome not committed", at: paying, commit: "AttemptAnswered", when: redistest.Before, log: logAskedAfter},
	{name: "outcome committed late", at: paying, commit: "AttemptAnswered", when: redistest.Before, late: true, log: logUneventful},
	{name: "outcome committed, its answer lost", at: paying, commit: "AttemptAnswered", when: redistest.After, log: logUneventful},
}

// survivedGaps are gaps of a charge with another gateway beside, which takes
// over what the dead one left.
var survivedGaps = []gap{
	{name: "attempt committed, another gateway beside", at: paying, beside: true, commit: "AttemptStarted", when: redistest.After, log: logNeverMade},
	{name: "platform reached, another gateway beside", at: paying, beside: true, call: "cybersource.payments", when: redistest.After, log: logAskedAfter},
	{name: "outcome not committed, another gateway beside", at: paying, beside: true, commit: "AttemptAnswered", when: redistest.Before, log: logAskedAfter},
}

// laggingGaps are those in which a charge shows so late that the customer has
// paid again by then: the second success is given back.
var laggingGaps = []gap{
	{name: "platform reached, found too late", at: paying, lags: true, call: "cybersource.payments", when: redistest.After, log: logSecondSuccess},
}

// inquiryGaps are the gaps while the platform is asked about a charge whose
// answer was lost on the line, with the gateway alive.
var inquiryGaps = []gap{
	{name: "timer not committed", at: waiting, lost: true, commit: "TimerFired", when: redistest.Before, log: logAskedAfter},
	{name: "timer committed, its answer lost", at: waiting, lost: true, commit: "TimerFired", when: redistest.After, log: logAskedAfter},
	{name: "question not asked", at: waiting, lost: true, call: "cybersource.searches", when: redistest.Before, log: logAskedAfter},
	{name: "question asked, its answer lost", at: waiting, lost: true, call: "cybersource.searches", when: redistest.After, log: logAskedAfter},
	{name: "finding not committed", at: waiting, lost: true, commit: "AttemptAnswered", when: redistest.Before, log: logAskedAfter},
	{name: "finding committed, its answer lost", at: waiting, lost: true, commit: "AttemptAnswered", when: redistest.After, log: logAskedAfter},
}

// reversalGaps are the gaps while held money is given back.
var reversalGaps = []gap{
	{name: "hold known, its commit not made", at: paying, card: panRiskRefused, commit: "AttemptAnswered", when: redistest.Before, log: slices.Concat(logToCard, []string{"attempt_started", "attempt_unsettled", "reversal_started", "declined"}, logPaid, logReceipt)},
	{name: "reversal not made", at: paying, card: panRiskRefused, call: "cybersource.reversals", when: redistest.Before, log: logGivenBackLate},
	{name: "reversal made, its answer lost", at: paying, card: panRiskRefused, call: "cybersource.reversals", when: redistest.After, log: logGivenBackLate},
	{name: "reversal not committed", at: paying, card: panRiskRefused, commit: "OperationAnswered", when: redistest.Before, log: logGivenBackLate},
	{name: "reversal committed, its answer lost", at: paying, card: panRiskRefused, commit: "OperationAnswered", when: redistest.After, log: logGivenBack},
}

// crashes bounds how many gaps are played at the same time. They spend their
// time waiting, so they are more than -parallel would allow.
var crashes = make(chan struct{}, 8)

// TestCrash kills the gateway in every gap, on a single redis-server and on a
// Cluster of three whose nodes announce proxies.
func TestCrash(t *testing.T) {
	t.Parallel()
	byChannel := map[string][]gap{
		"whatsapp": slices.Concat(requestGaps, messageGaps("whatsapp", asking, paymentMessage), echoGaps("whatsapp"), openingGaps, chargeGaps,
			survivedGaps, laggingGaps, messageGaps("whatsapp", paying, receiptMessage), inquiryGaps, reversalGaps),
		"sms": slices.Concat(messageGaps("sms", asking, paymentMessage), echoGaps("sms"), messageGaps("sms", paying, receiptMessage)),
	}
	for _, redis := range []struct {
		name  string
		start func(*testing.T) rigRedis
	}{
		{"single", aSingleRedis},
		{"cluster", aCluster},
	} {
		t.Run(redis.name, func(t *testing.T) {
			t.Parallel()
			store := redis.start(t)
			var played sync.WaitGroup
			for channel, gaps := range byChannel {
				for _, g := range gaps {
					played.Go(func() {
						crashes <- struct{}{}
						defer func() { <-crashes }()
						t.Run(strings.Join([]string{channel, stepNames[g.at], g.name}, "/"), func(t *testing.T) { g.play(t, store, channel) })
					})
				}
			}
			played.Wait()
		})
	}
}

var stepNames = map[step]string{asking: "asking", opening: "opening", paying: "paying", waiting: "waiting"}

// play tells the story with the crash in it, and then looks at what is there.
func (g gap) play(t *testing.T, store rigRedis, channel string) {
	s := newRig(t, store, func(o *rigOptions) {
		if g.lags {
			o.Env["TIMINGS_LATE_ASK_AFTER"] = "20s,25s" // when all else is over
			o.World = func(_ *simulator.Config, card *cybersource.Config) { card.SearchDelay = 10 * time.Second }
		}
	})
	gateway := s.startGateway()
	if g.beside {
		s.startGateway()
	}
	c := s.payer(demoCustomer, channel)
	want := asked{Order: "1042", Phone: demoCustomer, Channel: channel, Amount: "149.00", Key: "panel-1"}

	crashed := false
	// does lets a person do something: again, if the gateway died meanwhile.
	does := func(at step, act func() error) {
		t.Helper()
		if at == g.at {
			g.crashIn(s, gateway, act)
			crashed = true
		}
		s.must(act())
	}
	var id string
	g.switchPhone(c, false)
	does(asking, func() (err error) { id, err = s.ask(want); return err })
	if slices.Contains(g.log, "sent") {
		s.awaitEvent(id, "sent")
	}
	g.switchPhone(c, true)
	s.awaitEvent(id, "delivered")
	s.must(c.follow("/p/"))
	if g.at == paying {
		// The one that is to die, which then knows the state: what is held shall
		// be a commit, not a conflict.
		c.through(gateway)
	}
	does(opening, c.open)

	g.switchPhone(c, false)
	g.pay(s, gateway, c, id, &crashed)
	s.awaitEvent(id, "receipt_sent")
	g.switchPhone(c, true)
	s.awaitEvent(id, "receipt_delivered")
	s.must(c.viewReceipt())
	s.awaitEvent(id, g.log[len(g.log)-1])
	if !crashed {
		t.Fatal("the gateway was never killed")
	}
	g.check(s, c, id)
}

// switchPhone switches the customer's phone off while a message is sent by
// WhatsApp: Meta delivers a webhook that failed again beside those that follow,
// and a log in which "delivered" overtakes "sent" is another log. Twilio keeps
// the order.
func (g gap) switchPhone(c *payer, on bool) {
	if c.channel == "whatsapp" {
		c.s.world.Phones.SwitchOff(c.phone, !on)
	}
}

// pay lets the customer pay, and pay again while nothing was charged.
func (g gap) pay(s *rig, gateway *gatewayProcess, c *payer, id string, crashed *bool) {
	s.t.Helper()
	card := panApproved
	if g.card != "" {
		card = g.card
	}
	if g.lost {
		s.setFaults(faults.Rule{ID: "lost", Call: "cybersource.payments", Do: faults.DropAfter, Times: 1})
	}
	token, err := c.token(card)
	s.must(err)
	charge := func() error { _, err := c.charge(token); return err }
	switch g.at {
	case paying:
		g.crashIn(s, gateway, charge)
		*crashed = true
	case waiting:
		s.must(charge())
		s.awaitEvent(id, "attempt_unsettled")
		s.world.CyberSource.Index() // the first search shall find it
		g.crashIn(s, gateway, func() error { return nil })
		*crashed = true
	default:
		s.must(charge())
	}
	for s.awaitLifecycle(id, "paid", "open") == "open" {
		s.must(c.follow("/p/"))
		s.must(c.retry())
		_, err := c.pay(panApproved)
		s.must(err)
	}
}

// crashIn lets somebody do something, kills the gateway when it has come to the
// gap, and starts another.
func (g gap) crashIn(s *rig, gateway *gatewayProcess, act func() error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), longestWait)
	defer cancel()
	var held *redistest.Held
	if g.call != "" {
		rules := []faults.Rule{{ID: "gap", Call: g.call, Do: "hold_" + string(g.when), Times: 1}}
		if g.loseEcho > 0 {
			rules = append(rules, faults.Rule{ID: "echo", Call: echoOf(g.call), Do: faults.Drop, Times: g.loseEcho})
		}
		s.setFaults(rules...)
	} else {
		held = s.store.hold(s.commitOf(g.commit, g.key), g.when)
		defer held.Drop()
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = act() // it may be cut short: that is the point
	}()
	if held != nil {
		s.must(held.Wait(ctx))
	} else {
		s.awaitHeldCall("gap")
	}
	gateway.kill()
	switch {
	case held == nil:
		// The company notices that its caller is gone.
		s.await("the held call has ended", func() bool { return s.world.Faults.Rules()[0].Held == 0 })
	case g.late:
		held.Release()
	default:
		held.Drop()
	}
	if !g.beside {
		s.startGateway()
	}
	<-gone
}

// echoOf names the webhooks that report what became of a message.
func echoOf(call string) string { return strings.TrimSuffix(call, "messages") + "webhook.status" }

// check holds what really happened against what Paythread says of it.
func (g gap) check(s *rig, c *payer, id string) {
	s.t.Helper()
	s.awaitIdle()
	if g.lags {
		s.await("the message about what went back has arrived", func() bool { return strings.Count(strings.Join(s.eventTypes(id), " "), "message_updated") == 2 })
	}
	// What is told of the refund's message comes whenever its statuses do.
	if got := filterOut(s.eventTypes(id), "message_updated"); !slices.Equal(got, g.log) {
		s.t.Errorf("the event log is\n%v, want\n%v", got, g.log)
	}
	made := s.charges()
	if len(made.Standing) != 1 || made.Standing[0].Amount != "149.00" {
		s.t.Errorf("the platform has charged %v, want one charge of 149.00", made.Standing)
	}
	if want := len(filter(g.log, "reversal_started")); len(made.Returned) != want {
		s.t.Errorf("the platform has given back %v, want %d", made.Returned, want)
	}
	r := s.request(id)
	if r.Lifecycle != "paid" || r.Totals["captured"].Value != "149.00" || r.Totals["refundable"].Value != "149.00" {
		s.t.Errorf("the request is %s with the totals %v, want paid with 149.00", r.Lifecycle, r.Totals)
	}
	if want := len(filter(g.log, "attempt_started")); len(r.Attempts) != want {
		s.t.Errorf("the request has the attempts %v, want %d", r.Attempts, want)
	}
	for _, m := range r.Messages {
		if m.Status != "delivered" && m.Status != "read" {
			s.t.Errorf("the message for the %s is %s, want delivered", m.Purpose, m.Status)
		}
	}
	payments := max(1, g.payments)
	if got := len(c.links("/p/")); got != payments {
		s.t.Errorf("the phone has %d payment messages, want %d", got, payments)
	}
	receipts := 1
	if g.lags {
		receipts = 2 // the customer is told of the second payment that went back
	}
	if got := len(c.links("/r/")); got != receipts {
		s.t.Errorf("the phone has %d messages with the receipt's link, want %d", got, receipts)
	}
}

func filter(list []string, want string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s != want })
}

func filterOut(list []string, without string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == without })
}
