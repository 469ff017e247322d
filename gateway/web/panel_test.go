package web_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const createPath = "/v1/payment-requests"

// upTo is what the page must have heard when n events have happened.
func upTo(n int) []int {
	seqs := make([]int, n)
	for i := range seqs {
		seqs[i] = i + 1
	}
	return seqs
}

func (b *tab) wantHeard(n int) {
	b.t.Helper()
	if got := b.heard(); !slices.Equal(got, upTo(n)) {
		b.t.Errorf("the page heard events %v, want %v", got, upTo(n))
	}
}

func TestPanelShowsImportedOrderAndForm(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	g.set(func() {
		g.channels = []object{{"channel": "whatsapp", "available": true}, {"channel": "sms", "available": false, "reason": "opted_out"}}
	})
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)

	for name, expression := range map[string]string{
		"order number":              `$('#title').textContent.includes('1042')`,
		"total with its currency":   `/R\s?1[,\s]723\.85/.test($('[data-row=total]').textContent)`,
		"tax":                       `$('[data-row=tax]').textContent.includes('224.85')`,
		"no row for zero shipping":  `!$('[data-row=shipping]') && !$('[data-row=discount]')`,
		"order has no input":        `!$('#order input, #order textarea, #order [contenteditable]')`,
		"test payment banner":       `!$('#sandbox').hidden`,
		"phone in national form":    `$('#phone').value === '082 123 4567'`,
		"phone in international":    `$('#phone-hint').textContent.includes('+27 82 123 4567')`,
		"first channel chosen":      `$('#channel-whatsapp').checked`,
		"other channel disabled":    `$('#channel-sms').disabled`,
		"and why, in words":         `document.querySelector('paythread-panel').shadowRoot.getElementById($('#channel-sms').getAttribute('aria-describedby')).textContent.includes('asked not to be messaged')`,
		"preview":                   `$('#preview').innerText.includes('Pay securely')`,
		"nothing broke the policy":  `violations.length === 0`,
		"not wider than the screen": `document.documentElement.scrollWidth <= innerWidth`,
	} {
		if !eval[bool](b, expression) {
			t.Errorf("%s: %s is false", name, expression)
		}
	}
	b.fill("#phone", "083 555 0000")
	b.await(`$('#phone-hint').textContent.includes('+27 83 555 0000')`)
	b.fill("#phone", "+44 20 7946 0958")
	b.await(`$('#phone-hint').textContent.includes('+44 20 7946 0958')`)
}

func TestPanelSendsOnce(t *testing.T) {
	t.Parallel()
	for name, press := range map[string]func(b *tab){
		"double click": func(b *tab) {
			b.run("double click", chromedp.DoubleClick(chromedp.JSPath(inPanel("#send"))))
		},
		"enter in a field": func(b *tab) {
			b.run("focus", chromedp.Focus(chromedp.JSPath(inPanel("#phone"))))
			b.keys(kb.Enter)
		},
		"submitted twice at once": func(b *tab) {
			b.run("submit", chromedp.Evaluate[chromedp.Void](inPanel("#form")+".requestSubmit();"+inPanel("#form")+".requestSubmit()"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newFakeGateway(t)
			b := g.openPanel(t, g.token(g.seal()), 390, 844)
			b.await(`$('#preview .bubble')`)
			press(b)
			b.await(`$('[data-step=sent][data-state=current]') && heard.length === 1`)
			calls := g.called("POST", createPath)
			if len(calls) != 1 || g.made() != 1 {
				t.Fatalf("got %d calls and %d requests, want one of each", len(calls), g.made())
			}
			if calls[0].key == "" {
				t.Error("the call has no Idempotency-Key")
			}
			if want := `"phone":"082 123 4567"`; !strings.Contains(calls[0].body, want) || strings.Contains(calls[0].body, "total") {
				t.Errorf("got body %s, want %s and no amount", calls[0].body, want)
			}
		})
	}
}

func TestPanelRetriesLostAnswerWithTheSameKey(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	g.set(func() { g.lose = 1000 })
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.fill("#note", "call back at noon")
	b.click("#send")
	b.await(`$('#form-alert').textContent.includes('did not reach us')`)
	b.await(`$('#send').textContent === 'Try again' && $('#phone').matches(':disabled')`)
	g.set(func() { g.lose = 0 })
	b.click("#send")
	b.await(`!$('#guide').hidden && heard.length === 1`)
	calls := g.called("POST", createPath)
	// The browser may repeat a call on its own account when a connection breaks.
	if len(calls) < 4 || g.made() != 1 {
		t.Fatalf("got %d calls and %d requests, want at least 4 and 1", len(calls), g.made())
	}
	for _, c := range calls {
		if c.key != calls[0].key || c.body != calls[0].body {
			t.Errorf("got call %+v, want the first one again: %+v", c, calls[0])
		}
	}
}

func TestPanelShowsRefusalsWhereTheyBelong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status  int
		problem object
		want    string
	}{
		"field by name": {422, object{"detail": "Invalid.", "errors": []object{{"field": "phone", "message": "No such number.", "location": "body.phone"}}},
			`$('#phone-error').textContent === 'No such number.' && $('#phone').getAttribute('aria-invalid') === 'true' && document.querySelector('paythread-panel').shadowRoot.activeElement === $('#phone') && !$('#form-alert').textContent`},
		"field by location only": {422, object{"detail": "Invalid.", "errors": []object{{"message": "Too long.", "location": "body.note"}}},
			`$('#note-error').textContent === 'Too long.' && !$('#note-error').hidden`},
		"opted out": {409, object{"detail": "The customer opted out of WhatsApp. SMS is still allowed.", "reason": "opted_out"},
			`$('#channel-error').textContent.includes('SMS is still allowed') && $('fieldset#channel').getAttribute('aria-invalid') === 'true'`},
		"refused by state": {409, object{"detail": "Order 1042 is being paid right now.", "reason": "processing"},
			`$('#form-alert').textContent.includes('being paid right now')`},
		"another field": {422, object{"detail": "Amounts come from the order.", "errors": []object{{"field": "total", "message": "must not be sent"}}},
			`$('#form-alert').textContent.includes('Amounts come from the order.')`},
		"markup is text": {422, object{"detail": "<img src=x id=injected>"},
			`$('#form-alert').textContent.includes('<img') && !$('#injected')`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newFakeGateway(t)
			g.refuse("payment-requests", c.status, c.problem)
			b := g.openPanel(t, g.token(g.seal()), 390, 844)
			b.await(`$('#preview .bubble')`)
			b.click("#send")
			b.await(c.want)
			// A definite answer frees the form, and the next press is another call.
			b.await(`!$('#phone').matches(':disabled') && $('#send').getAttribute('aria-disabled') === 'false'`)
			b.click("#send")
			b.await(`!$('#guide').hidden`)
			if calls := g.called("POST", createPath); len(calls) != 2 || calls[0].key == calls[1].key {
				t.Errorf("got calls %+v, want two with a key each", calls)
			}
		})
	}
}

func TestPanelFindsTheOrderTaken(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	so := g.seal()
	first, second := g.openPanel(t, g.token(so), 390, 844), g.openPanel(t, g.token(so), 390, 844)
	first.await(`$('#preview .bubble')`)
	second.await(`$('#preview .bubble')`)
	first.click("#send")
	first.await(`!$('#guide').hidden`)
	g.refuse("payment-requests", 409, object{"detail": "The order is held by another request.", "reason": "order_held"})
	second.click("#send")
	second.await(`!$('#guide').hidden && $('#alert').textContent.includes('already has a payment request')`)
}

func TestPanelChecksPhoneBeforeSending(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.fill("#phone", "0821")
	b.keys(kb.Tab)
	b.await(`$('#phone-error').textContent === 'This is not a phone number in South Africa.'`)
	b.await(`$('#preview .bubble')`) // the message is shown all the same
	b.fill("#phone", "082 999 8888")
	b.await(`$('#phone-error').hidden`)
	b.fill("#phone", " ")
	b.keys(kb.Enter)
	b.await(`$('#phone-error').textContent.includes('Type the customer')`)
	if calls := g.called("POST", createPath); len(calls) != 0 {
		t.Errorf("got %d creates, want none", len(calls))
	}
}

func TestPanelResumesStream(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.milestone("sent", "The message was sent.", nil)
	b.await(`heard.length === 2`)
	g.cutStreams()
	b.await(`$('#connection').textContent === 'Reconnecting…' || $('#connection').textContent === 'Live'`)
	g.milestone("delivered", "The message was delivered.", nil)
	g.milestone("opened", "The customer opened the link.", object{"pay_by": time.Now().UTC().Add(15 * time.Minute)})
	b.await(`heard.length === 4`)
	g.cutStreams()
	g.milestone("checkout_started", "The customer is at the checkout.", nil)
	b.await(`heard.length === 5 && $('[data-step=checkout_started]').dataset.state === 'done'`)
	b.wantHeard(5)
	b.await(`$('#connection').textContent === 'Live'`)
	b.await(`$('#left').textContent.includes('Left to pay')`)
	if got := eval[string](b, `$('[data-step=read]').dataset.state`); got != "silent" {
		t.Errorf("a step that was passed without report is %q, want silent", got)
	}
	var resumed []string
	for _, c := range g.called("GET", createPath+"/pr_1/events") {
		resumed = append(resumed, c.lastEventID)
	}
	if !slices.IsSorted(resumed) || resumed[0] != "0" || resumed[len(resumed)-1] != "4" {
		t.Errorf("got Last-Event-ID %v, want from 0 up to 4", resumed)
	}
}

func TestPanelRenewsToken(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	so := g.seal()
	b := g.openPanel(t, g.token(so), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.fill("#note", "unsent words")
	g.endTokens()
	b.click("#channel-sms") // asks for a preview
	b.await(`needed > 0 && $('#connection').textContent.includes('Renewing')`)
	b.setToken(g.token(so))
	b.await(`$('#preview').dataset.channel === 'sms' && $('#note').value === 'unsent words' && $('#channel-sms').checked`)

	b.click("#send")
	b.await(`heard.length === 1`)
	before := eval[int](b, "needed")
	g.endTokens()
	g.milestone("sent", "The message was sent.", nil)
	b.await(`needed > ` + string(rune('0'+before)))
	g.milestone("delivered", "The message was delivered.", nil)
	b.setToken(g.token(so))
	b.await(`heard.length === 3 && $('#connection').textContent === 'Live'`)
	b.wantHeard(3)

	// A token that is about to end is renewed before anything fails.
	g.set(func() { g.lifetime = 3 * time.Second })
	before = eval[int](b, "needed")
	b.setToken(g.token(so))
	b.await(`needed > ` + string(rune('0'+before)))
}

func TestPanelActions(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`!$('#extend').disabled && heard.length === 1`)
	b.await(`/^23 h 59|^24 h/.test($('#left b').textContent)`)
	b.click("#extend")
	b.await(`/^4[78] h/.test($('#left b').textContent) && heard.length === 2`)
	b.await(`$('#extend').getAttribute('aria-disabled') === null`)

	g.refuse("resend", 409, object{"detail": "The customer opted out a minute ago.", "reason": "opted_out"})
	b.click("#resend")
	b.await(`$('#action-alert').textContent.includes('opted out a minute ago')`)
	b.click("#resend")
	b.await(`heard.length === 3 && !$('#action-alert').textContent`)
	keys := map[string]bool{}
	for _, c := range g.called("POST", createPath+"/pr_1/resend") {
		keys[c.key] = true
	}
	if len(keys) != 2 {
		t.Errorf("got keys %v, want one for each press", keys)
	}

	b.click("#cancel")
	b.await(`!$('#confirm').hidden && document.querySelector('paythread-panel').shadowRoot.activeElement.id === 'confirm-no'`)
	b.keys(kb.Escape)
	b.await(`$('#confirm').hidden && document.querySelector('paythread-panel').shadowRoot.activeElement.id === 'cancel'`)
	b.click("#cancel")
	b.fill("#reason", "customer phoned")
	b.click("#confirm-yes")
	b.await(`$('#state').dataset.lifecycle === 'cancelled' && $('[data-step=cancelled]') && !$('#new-request').hidden`)
	calls := g.called("POST", createPath+"/pr_1/cancel")
	if len(calls) != 1 || !strings.Contains(calls[0].body, "customer phoned") {
		t.Errorf("got cancels %+v, want one with its reason", calls)
	}
	b.click("#new-request")
	b.await(`!$('#form').hidden && $('#phone').value === '082 123 4567'`)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`!$('#guide').hidden && $('#state').dataset.lifecycle === 'open'`)
	if g.made() != 2 {
		t.Errorf("got %d requests, want 2", g.made())
	}
}

func TestPanelGuidesThroughDeclineToPaid(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	so := g.seal()
	b := g.openPanel(t, g.token(so), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.decline()
	b.await(`$('#state').dataset.key === 'declined' && $('[data-attempt="1"]').textContent.includes('Visa ending 1111')`)
	b.await(`$('#state-text').textContent.includes('Not enough money')`)
	g.pay()
	b.await(`$('#state').dataset.lifecycle === 'paid' && $('[data-step=paid]').dataset.state === 'done' && $('[data-attempt="2"]').dataset.state === 'captured'`)
	b.await(`$('#cancel').hidden && $('#extend').hidden && $('#resend').textContent === 'Send receipt again'`)
	g.milestone("receipt_sent", "The receipt was sent.", nil)
	g.milestone("receipt_viewed", "The customer looked at the receipt.", nil)
	b.await(`$('[data-step=receipt_viewed]').dataset.state === 'done'`)
	b.await(`$('#live').textContent === 'The customer looked at the receipt.'`)
	n := eval[int](b, "heard.length")
	b.wantHeard(n)

	// Opened again, the panel shows the same request, and sends nothing.
	again := g.openPanel(t, g.token(so), 390, 844)
	again.await(`$('#state').dataset.lifecycle === 'paid' && $('#steps').children.length === 9`)
	again.await(`heard.length >= ` + string(rune('0'+min(n, 9))))
	if g.made() != 1 {
		t.Errorf("got %d requests, want 1", g.made())
	}
}

func TestPanelOffersTheOtherChannel(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.failMessage()
	b.await(`$('#state').dataset.key === 'undelivered' && $('#state-text').textContent.includes('not on WhatsApp') && $('#other-channel').textContent === 'Send by SMS instead'`)
	b.click("#other-channel")
	b.await(`!$('#confirm').hidden`)
	b.click("#confirm-yes")
	b.await(`!$('#form').hidden && $('#channel-sms').checked && $('#preview').dataset.channel === 'sms'`)
	b.click("#send")
	b.await(`!$('#guide').hidden && $('#who').textContent.includes('SMS')`)
	if calls := g.called("POST", createPath); len(calls) != 2 || !strings.Contains(calls[1].body, `"channel":"sms"`) {
		t.Errorf("got creates %+v, want the second by sms", calls)
	}
}

func TestPanelByKeyboardAlone(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.tabTo("#phone")
	b.tabTo("#channel-whatsapp")
	b.keys(kb.ArrowRight)
	b.await(`$('#channel-sms').checked && $('#preview').dataset.channel === 'sms'`)
	b.tabTo("#send")
	b.keys(kb.Enter)
	b.await(`!$('#guide').hidden && document.querySelector('paythread-panel').shadowRoot.activeElement.id === 'state-title'`)
	b.tabTo("#extend")
	b.keys(" ")
	b.await(`heard.some((e) => e.type === 'extended')`)
	b.await(`$('#cancel').getAttribute('aria-disabled') === null`)
	b.tabTo("#cancel")
	b.keys(kb.Enter)
	b.await(`!$('#confirm').hidden`)
	b.tabTo("#confirm-yes")
	b.keys(kb.Enter)
	b.await(`$('#state').dataset.lifecycle === 'cancelled'`)
	b.tabTo("#new-request")
	b.keys(kb.Enter)
	b.await(`!$('#form').hidden`)
}

func TestPanelSaysWhatStopsIt(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	so := g.seal()
	b := g.openPanel(t, "e30.eyJzbyI6InNvXzEifQ.x", 390, 844)
	b.await(`$('.loading').textContent.includes('session is not valid')`)
	b.setToken(g.token(so))
	b.await(`!$('#form').hidden`)
}

func TestPanelFitsNarrowScreens(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 320, 640)
	b.await(`$('#preview .bubble')`)
	fits := `document.documentElement.scrollWidth <= 320`
	if !eval[bool](b, fits) {
		t.Error("the form is wider than 320 pixels")
	}
	b.click("#send")
	b.await(`heard.length === 1`)
	g.decline()
	b.await(`$('[data-attempt="1"]')`)
	if !eval[bool](b, fits) {
		t.Error("the guide is wider than 320 pixels")
	}
	// Every field has a name for those who cannot see it, and every picture in the list a word.
	if !eval[bool](b, `[...document.querySelector('paythread-panel').shadowRoot.querySelectorAll('input, textarea')].every((f) => f.labels.length > 0)`) {
		t.Error("a field has no label")
	}
	if got := eval[string](b, `$('[data-step=opened] .out').textContent`); got != ", done" {
		t.Errorf("a step's state reads %q, want \", done\"", got)
	}
}

// Every place where a request can stand has its words, and none is "undefined".
func TestPanelHasWordsForEveryState(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	attempt := func(state string) object {
		return object{"number": 1, "state": state, "amount": amount("1723.85"), "started_at": time.Now().UTC()}
	}
	operation := func(kind, state string) object {
		return object{"id": "op_1", "kind": kind, "state": state, "amount": amount("100.00"), "started_at": time.Now().UTC()}
	}
	none := []object{}
	for i, c := range []struct {
		lifecycle, reason     string
		attempts, operations  []object
		late, superseded      bool
		title, text, absentee string
	}{
		{lifecycle: "processing", attempts: []object{attempt("sending")}, title: "Payment in progress", text: "asking the bank"},
		{lifecycle: "processing", attempts: []object{attempt("authenticating")}, title: "Payment in progress", text: "confirming with their bank"},
		{lifecycle: "processing", attempts: []object{attempt("unsettled")}, title: "Waiting for the bank", text: "nothing is charged twice"},
		{lifecycle: "processing", attempts: []object{attempt("reversing")}, title: "Giving money back", text: "being released"},
		{lifecycle: "open", attempts: []object{attempt("not_taken")}, title: "Payment did not go through", text: "Nothing was charged"},
		{lifecycle: "in_review", attempts: []object{attempt("in_review")}, title: "In review", text: "being reviewed"},
		{lifecycle: "failed", reason: "too_many_attempts", attempts: []object{attempt("declined")}, title: "Failed", text: "New request"},
		{lifecycle: "expired", reason: "not_opened", attempts: none, title: "Expired", text: "not opened in time"},
		{lifecycle: "expired", reason: "not_paid", attempts: none, title: "Expired", text: "not paid in time"},
		{lifecycle: "cancelled", reason: "already_paid", attempts: none, title: "Cancelled", text: "through another request"},
		{lifecycle: "cancelled", reason: "by_agent", attempts: none, superseded: true, title: "Cancelled", text: "A newer request holds", absentee: "New request"},
		{lifecycle: "authorized", attempts: []object{attempt("authorized")}, title: "Authorised", text: "not been captured"},
		{lifecycle: "paid", attempts: []object{attempt("captured")}, late: true, title: "Paid", text: "after the request had ended"},
		{lifecycle: "paid", attempts: []object{attempt("captured")}, operations: []object{operation("refund", "unknown")}, title: "Paid", text: "outcome not known yet"},
		{lifecycle: "partially_refunded", operations: []object{operation("refund", "succeeded")}, title: "Partly refunded", text: "Refund, done"},
		{lifecycle: "refunded", operations: []object{operation("refund", "succeeded")}, title: "Refunded", text: "went back"},
		{lifecycle: "reversed", operations: []object{operation("void", "succeeded")}, title: "Reversed", text: "went back"},
	} {
		// Lists that are empty may be absent or null.
		var extra object
		if len(c.attempts) > 0 {
			extra = object{"milestone": "checkout_started"}
		}
		g.happen(c.lifecycle, "Now it is "+c.lifecycle+".", object{
			"lifecycle": c.lifecycle, "reason": c.reason, "attempts": c.attempts, "operations": c.operations, "late": c.late, "superseded": c.superseded, "actions": nil,
		}, extra)
		want, err := json.Marshal([]string{c.title, c.text})
		if err != nil {
			t.Fatal(err)
		}
		b.await(fmt.Sprintf(`heard.length === %d && %s.every((words) => $('#guide').innerText.includes(words))`, i+2, want))
		if eval[bool](b, `/undefined|null|NaN|\[object/.test($('main').innerText)`) {
			t.Errorf("%s (%s): %s", c.lifecycle, c.reason, b.text())
		}
		if c.absentee != "" && eval[bool](b, fmt.Sprintf(`$('#guide').innerText.includes(%q)`, c.absentee)) {
			t.Errorf("%s (%s) offers %q", c.lifecycle, c.reason, c.absentee)
		}
	}
}

// Money that comes for an ended request brings the agent back from the form for
// the next one, so that nobody asks twice.
func TestPanelReturnsToRequestWhenMoneyComes(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.happen("expired", "The link was not opened in time.", object{"lifecycle": "expired", "reason": "not_opened", "actions": []string{"extend"}}, nil)
	b.await(`$('#state').dataset.key === 'not_opened' && !$('#new-request').hidden && !$('#extend').disabled && $('#cancel').disabled`)
	b.click("#new-request")
	b.await(`!$('#form').hidden`)
	g.happen("late_payment", "The money came late.", object{"lifecycle": "paid", "reason": "", "late": true, "actions": []string{"resend"}}, object{"milestone": "paid"})
	b.await(`$('#form').hidden && $('#state').dataset.lifecycle === 'paid'`)
	if g.made() != 1 {
		t.Errorf("got %d requests, want 1", g.made())
	}
}

// After a failover that lost the end of the log, what happens next has numbers
// that the panel has seen before, and counts all the same.
func TestPanelFollowsLogThatWentBack(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.milestone("sent", "The message was sent.", nil)
	g.happen("extended", "More time was given.", nil, nil)
	b.await(`heard.length === 3`)
	g.set(func() {
		r := g.requests[0]
		r.events = r.events[:2]
		r.doc["last_event"] = 2
	})
	g.cutStreams()
	b.await(`$('#log summary').textContent === 'All events (2)'`)
	g.milestone("delivered", "The message was delivered.", nil)
	b.await(`heard.length === 4 && heard[3].seq === 3 && heard[3].type === 'delivered' && $('[data-step=delivered]').dataset.state === 'done'`)
}

// A page that moves or hides the panel loses neither input nor events.
func TestPanelSurvivesBeingMoved(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	move := func() {
		b.run("move the panel", chromedp.Evaluate[chromedp.Void](`void document.body.append(document.body.appendChild(document.createElement('div')), document.querySelector('paythread-panel'))`))
	}
	b.await(`$('#preview .bubble')`)
	b.fill("#note", "unsent words")
	move()
	b.await(`$('#note').value === 'unsent words' && !$('#form').hidden`)
	b.click("#send")
	b.await(`heard.length === 1`)
	b.run("take the panel out", chromedp.Evaluate[chromedp.Void](`window.kept = document.querySelector('paythread-panel'); void kept.remove()`))
	g.milestone("sent", "The message was sent.", nil)
	g.milestone("delivered", "The message was delivered.", nil)
	b.run("put it back", chromedp.Evaluate[chromedp.Void](`void document.body.append(kept)`))
	b.await(`heard.length === 3 && $('[data-step=delivered]').dataset.state === 'done' && $('#connection').textContent === 'Live'`)
	move()
	g.milestone("read", "The customer read the message.", nil)
	b.await(`heard.length === 4`)
	b.wantHeard(4)
}

// Another order's token shows another order, with nothing left of the first.
func TestPanelTakesAnotherOrder(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.fill("#note", "about the first order")
	b.click("#send")
	b.await(`heard.length === 1`)
	other := g.sealDoc(object{
		"order": "2001", "customer_name": "Aisha Patel", "phone": "+27721112233", "country": "ZA", "line_items": nil,
		"subtotal": amount("10.00"), "tax": amount("1.50"), "shipping": amount("5.00"), "discount": amount("2.00"), "total": amount("14.50"),
	})
	b.setToken(g.token(other))
	b.await(`!$('#form').hidden && $('#title').textContent.includes('2001') && $('#phone').value === '072 111 2233' && $('#note').value === ''`)
	b.await(`$('[data-row=shipping]').textContent.includes('5.00') && $('[data-row=discount]').textContent.includes('−')`)
	g.milestone("sent", "The first order's message was sent.", nil)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 2 && heard[1].order === '2001' && heard[1].seq === 1`)
}

// An action whose answer is lost is the same action when it is pressed again.
func TestPanelRepeatsLostActionWithTheSameKey(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.refuse("extend", 503, object{"detail": "Later."})
	b.click("#extend")
	b.await(`$('#action-alert').textContent.length > 0`)
	b.click("#extend")
	b.await(`heard.length === 2 && !$('#action-alert').textContent`)
	calls := g.called("POST", createPath+"/pr_1/extend")
	if len(calls) != 2 || calls[0].key == "" || calls[0].key != calls[1].key {
		t.Errorf("got calls %+v, want two with the same key", calls)
	}
}

// decline plays a customer whose first card is declined.
func (g *fakeGateway) decline() {
	g.milestone("sent", "The message was sent.", nil)
	g.milestone("delivered", "The message was delivered.", nil)
	g.milestone("read", "The customer read the message.", nil)
	g.milestone("opened", "The customer opened the link.", object{"pay_by": time.Now().UTC().Add(15 * time.Minute)})
	g.milestone("checkout_started", "The customer is at the checkout.", nil)
	now := time.Now().UTC()
	declined := object{"number": 1, "code": "pr_1-1", "state": "declined", "reason": "INSUFFICIENT_FUND", "text": "Not enough money in the account.", "amount": amount("1723.85"), "card": object{"brand": "visa", "last4": "1111"}, "started_at": now, "settled_at": now}
	g.happen("attempt_started", "The customer pressed Pay.", object{"lifecycle": "processing", "actions": []string{}, "attempts": []object{{"number": 1, "state": "sending", "amount": amount("1723.85"), "started_at": now}}}, object{"attempt": 1})
	g.happen("declined", "The card was declined: not enough money.", object{"lifecycle": "open", "attempts": []object{declined}, "actions": []string{"cancel", "resend", "extend"}}, object{"attempt": 1, "milestone": "declined"})
}

// pay plays the second card, which is approved.
func (g *fakeGateway) pay() {
	now := time.Now().UTC()
	g.mu.Lock()
	attempts := slices.Clone(g.requests[len(g.requests)-1].doc["attempts"].([]object))
	g.mu.Unlock()
	paid := object{"number": len(attempts) + 1, "state": "captured", "text": "Approved.", "amount": amount("1723.85"), "card": object{"brand": "mastercard", "last4": "4444"}, "started_at": now, "settled_at": now}
	g.happen("paid", "Paid.", object{"lifecycle": "paid", "attempts": append(attempts, paid), "actions": []string{"resend"}}, object{"attempt": 2, "milestone": "paid"})
}

// failMessage lets the payment message of the newest request fail for good.
func (g *fakeGateway) failMessage() {
	g.mu.Lock()
	id := g.requests[len(g.requests)-1].doc["messages"].([]object)[0]["id"]
	g.mu.Unlock()
	g.happen("message_failed", "The message failed: the number is not on WhatsApp.", object{"messages": []object{{
		"id": id, "purpose": "payment", "channel": "whatsapp", "status": "failed", "reason": "not_on_channel", "reason_text": "This number is not on WhatsApp.",
	}}}, object{"message": object{"id": id, "purpose": "payment", "channel": "whatsapp", "status": "failed", "reason": "not_on_channel"}})
}
