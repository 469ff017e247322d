package web_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// message is one message of the newest request, the n-th for its purpose.
func message(n int, purpose, channel, status string, extra object) object {
	id := purpose + "_" + string(rune('0'+n))
	m := object{"id": id, "purpose": purpose, "channel": channel, "status": status, "queued_at": time.Now().UTC()}
	for k, v := range extra {
		m[k] = v
	}
	return m
}

var notOnChannel = object{"reason": "not_on_channel", "reason_text": "This number cannot be reached on WhatsApp; SMS may work."}

// fallBack lets the newest request's message fail on WhatsApp and go by SMS, as
// the gateway's log tells it.
func (g *fakeGateway) fallBack(purpose string) {
	failed := message(1, purpose, "whatsapp", "failed", notOnChannel)
	change := object{"messages": []object{failed, message(2, purpose, "sms", "queued", object{"follows": failed["id"]})}, "fell_back_to": "sms"}
	of := object{"message": object{"id": failed["id"], "purpose": purpose, "channel": "whatsapp", "status": "failed", "reason": "not_on_channel"}}
	g.happen("message_failed", "The message could not be delivered.", change, of)
	g.happen("fell_back", "WhatsApp did not reach the customer; the message goes by SMS, with the same link.", nil, of)
}

// The agent watches WhatsApp fail and SMS take over, and has nothing to do.
func TestPanelShowsSMSTakingOver(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.fallBack("payment")
	b.await(`heard.length === 3 && $('#state').dataset.key === 'fell_back' && $('#state').dataset.tone === 'warn'`)
	b.await(`$('[data-step=sent] .tries').children.length === 2`)
	for name, expression := range map[string]string{
		"says what happens":         `$('#state-title').textContent === 'Sending by SMS instead'`,
		"and why":                   `$('[data-message=whatsapp]').textContent.includes('cannot be reached on WhatsApp') && $('#state-text').textContent.includes('same link')`,
		"to whom, how":              `$('#who').textContent.endsWith('by SMS instead of WhatsApp')`,
		"the first message":         `$('[data-message=whatsapp]').textContent.includes('WhatsApp: not delivered') && $('[data-message=whatsapp]').dataset.tone === 'bad'`,
		"with its time":             `$('[data-message=whatsapp] time') !== null`,
		"the second message":        `$('[data-message=sms]').textContent.includes('SMS: waiting to go')`,
		"nothing for the agent":     `$('#other-channel').hidden && $('[data-step=sent]').dataset.state === 'current'`,
		"told to those who hear it": `$('#live').textContent.includes('goes by SMS')`,
		"not wider than the screen": `document.documentElement.scrollWidth <= innerWidth`,
	} {
		if !eval[bool](b, expression) {
			t.Errorf("%s: %s is false in\n%s", name, expression, b.text())
		}
	}

	sms := func(status string) object {
		return object{"messages": []object{message(1, "payment", "whatsapp", "failed", notOnChannel), message(2, "payment", "sms", status, object{"follows": "payment_1"})}}
	}
	g.milestone("sent", "The message was sent.", sms("sent"))
	b.await(`$('#state').dataset.key === 'sent' && $('[data-message=sms]').dataset.state === 'sent'`)
	g.milestone("delivered", "The message is on the phone.", sms("delivered"))
	b.await(`$('#state').dataset.key === 'delivered' && $('[data-message=sms]').dataset.tone === 'good' && $('#other-channel').hidden`)
	// Nobody waits for an SMS to be reported as read.
	b.await(`$('[data-step=read]').dataset.state === 'silent' && $('[data-step=opened]').dataset.state === 'current'`)

	// Opened again later, it tells the same.
	again := g.openPanel(t, g.token("so_1"), 390, 844)
	again.await(`$('#state').dataset.key === 'delivered' && $('#who').textContent.includes('instead of') && $('[data-message=whatsapp] time')`)
}

// Between the event and the next answer the panel knows already that an SMS
// will go, and shows no failure in between.
func TestPanelShowsNoFailureWhileSMSTakesOver(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.mu.Lock()
	id := g.requests[0].doc["messages"].([]object)[0]["id"]
	g.mu.Unlock()
	// What the API says does not change here: only the events tell.
	of := object{"message": object{"id": id, "purpose": "payment", "channel": "whatsapp", "status": "failed", "reason": "not_on_channel"}}
	g.happen("message_failed", "The message could not be delivered.", nil, of)
	b.await(`heard.length === 2`)
	g.happen("fell_back", "The message goes by SMS.", object{"fell_back_to": "sms", "messages": []object{message(1, "payment", "whatsapp", "failed", notOnChannel)}}, of)
	b.await(`heard.length === 3 && $('#state').dataset.key === 'fell_back' && $('#other-channel').hidden`)
}

func TestPanelTellsFurtherMessagesApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		messages []object
		fellBack string
		reached  string
		want     string
	}{
		"the same channel once more": {
			messages: []object{message(1, "payment", "whatsapp", "failed", notOnChannel), message(2, "payment", "whatsapp", "queued", object{"follows": "payment_1"})},
			want:     `$('#state').dataset.key === 'resending' && $('#who').textContent.endsWith('by WhatsApp')`,
		},
		"by SMS because time ran out": {
			messages: []object{message(1, "payment", "whatsapp", "sent", nil), message(2, "payment", "sms", "accepted", object{"follows": "payment_1"})},
			fellBack: "sms", reached: "sent",
			want: `$('#state').dataset.key === 'fell_back' && $('#state-text').textContent.includes('not delivered it so far') && $('[data-message=sms]').textContent.includes('with the provider')`,
		},
		"WhatsApp arrives after all": {
			messages: []object{message(1, "payment", "whatsapp", "delivered", nil), message(2, "payment", "sms", "failed", object{"follows": "payment_1", "reason": "not_needed", "reason_text": "Not needed any more."})},
			fellBack: "sms", reached: "delivered",
			want: `$('#state').dataset.key === 'delivered' && $('[data-message=sms]').textContent.includes('called off') && $('[data-message=sms]').dataset.tone === '' && $('#other-channel').hidden && !$('[data-step][data-state=failed]')`,
		},
		"SMS fails, too": {
			messages: []object{message(1, "payment", "whatsapp", "failed", notOnChannel), message(2, "payment", "sms", "failed", object{"follows": "payment_1", "reason": "unreachable", "reason_text": "The phone cannot be reached."})},
			fellBack: "sms",
			want:     `$('#state').dataset.key === 'undelivered' && $('#state-text').textContent.includes('The phone cannot be reached.') && $('#other-channel').hidden && $('[data-step=sent]').dataset.state === 'failed'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newFakeGateway(t)
			b := g.openPanel(t, g.token(g.seal()), 390, 844)
			b.await(`$('#preview .bubble')`)
			b.click("#send")
			b.await(`heard.length === 1`)
			var extra object
			if c.reached != "" {
				extra = object{"milestone": c.reached}
			}
			g.happen("message_updated", "There is news of a message.", object{"messages": c.messages, "fell_back_to": c.fellBack}, extra)
			b.await(`$('[data-step=sent] .tries').children.length === 2 && ` + c.want)
			if eval[bool](b, `/undefined|null|NaN|\[object/.test($('main').innerText)`) {
				t.Errorf("the panel reads\n%s", b.text())
			}
		})
	}
}

// A message that waits, because its sender is held or a failure may pass, says
// why and that nobody needs to do anything.
func TestPanelSaysWhyAMessageWaits(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1 && $('#state-text').textContent.includes('on its way to the provider')`)
	waiting := message(1, "payment", "whatsapp", "queued", object{"reason": "rate", "reason_text": "Too many messages for now. We try again by ourselves."})
	g.happen("message_updated", "There is news of a message.", object{"messages": []object{waiting}}, nil)
	b.await(`$('#state').dataset.key === 'queued' && $('#state').dataset.tone === 'info' && $('#state-text').textContent.includes('We try again by ourselves.')`)
}

// A receipt that falls back is told under its own step.
func TestPanelShowsReceiptBySMS(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.await(`$('#preview .bubble')`)
	b.click("#send")
	b.await(`heard.length === 1`)
	g.decline()
	g.pay()
	g.fallBack("receipt")
	b.await(`$('#state').dataset.key === 'paid' && $('[data-step=receipt_sent] .tries').children.length === 2 && $('#message-alert').hidden`)
	b.await(`$('[data-step=sent] .tries') === null && $('[data-attempt="1"]') !== null`)
}

// A company that takes no messages now is told before the agent sends, and the
// other channel is what the form suggests. The choice stays the agent's.
func TestPanelWarnsOfSenders(t *testing.T) {
	t.Parallel()
	for reason, words := range map[string]string{"sender_unusable": "takes no messages now", "sender_held": "wait here for a while"} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			g := newFakeGateway(t)
			g.set(func() {
				g.channels = []object{{"channel": "whatsapp", "available": true, "reason": reason}, {"channel": "sms", "available": true}}
			})
			b := g.openPanel(t, g.token(g.seal()), 390, 844)
			b.await(`$('#preview').dataset.channel === 'sms' && $('#channel-sms').checked && !$('#channel-whatsapp').disabled`)
			why := eval[string](b, `document.querySelector('paythread-panel').shadowRoot.getElementById($('#channel-whatsapp').getAttribute('aria-describedby')).textContent`)
			if !strings.Contains(why, words) {
				t.Errorf("WhatsApp is described as %q, want %q in it", why, words)
			}
			b.click("#channel-whatsapp")
			b.await(`$('#preview').dataset.channel === 'whatsapp'`)
			b.click("#send")
			b.await(`$('#who').textContent.endsWith('by WhatsApp')`)
		})
	}
}

func TestPanelTellsWhatAnSMSCosts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change object
		want   string
	}{
		"one part":            {object{}, "96 characters, 1 text message."},
		"three parts":         {object{"units": 330, "segments": 3, "cost_units": 3}, "330 characters, charged as 3 text messages."},
		"one letter":          {object{"encoding": "ucs2", "units": 96, "segments": 2, "cost_units": 2, "outside_gsm7": []string{"ł"}}, "96 characters, charged as 2 text messages.ł makes it longer: a text message with this holds 70 characters, not 160."},
		"several, and hidden": {object{"encoding": "ucs2", "units": 60, "outside_gsm7": []string{"ł", "U+202E"}}, "60 characters, 1 text message.ł U+202E make it longer: a text message with these holds 70 characters, not 160."},
		"markup is text":      {object{"encoding": "ucs2", "outside_gsm7": []string{"<b>"}}, "96 characters, 1 text message.<b> makes it longer: a text message with this holds 70 characters, not 160."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newFakeGateway(t)
			g.set(func() {
				for k, v := range c.change {
					g.sms[k] = v
				}
			})
			b := g.openPanel(t, g.token(g.seal()), 320, 640)
			b.await(`$('#preview .bubble')`)
			b.click("#channel-sms")
			b.await(`$('#preview-facts').textContent.length > 0`)
			if got := eval[string](b, `$('#preview-facts').textContent`); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			b.click("#channel-whatsapp")
			b.await(`$('#preview-facts').textContent === ''`)
		})
	}
}

// Without any style the panel still reads in order and works by keyboard: its
// words carry what colours and shapes say.
func TestPanelWorksWithoutStyles(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	b := g.openPanel(t, g.token(g.seal()), 390, 844)
	b.run("switch styles off", chromedp.Evaluate[chromedp.Void](`void (document.querySelector('paythread-panel').shadowRoot.adoptedStyleSheets = [])`))
	b.await(`$('#preview .bubble')`)
	b.tabTo("#send")
	b.keys(kb.Enter)
	b.await(`!$('#guide').hidden && heard.length === 1`)
	g.fallBack("payment")
	b.await(`$('[data-step=sent] .tries').children.length === 2`)
	if eval[bool](b, `$('#form').checkVisibility() || $('#confirm').checkVisibility() || $('.loading').checkVisibility()`) {
		t.Error("what is hidden is seen without styles")
	}
	read := eval[string](b, `$('#steps').innerText.replace(/\d\d:\d\d:\d\d/g, 'at').replace(/\s+/g, ' ')`)
	for _, want := range []string{"Sent, waiting ", "WhatsApp: not delivered at This number cannot be reached on WhatsApp; SMS may work.", "SMS: waiting to go at", "Delivered, not yet", "Receipt viewed, not yet"} {
		if !strings.Contains(read, want) {
			t.Errorf("the steps read %q, want %q in it", read, want)
		}
	}
	b.tabTo("#cancel")
	b.keys(" ")
	b.await(`$('#confirm').checkVisibility()`)
	b.keys(kb.Escape)
	b.await(`!$('#confirm').checkVisibility() && document.querySelector('paythread-panel').shadowRoot.activeElement.id === 'cancel'`)
}
