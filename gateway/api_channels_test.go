package main

import (
	"fmt"
	"testing"
	"time"

	"paythread/conversations"
)

// TestChannelsTellHowSendersStand: the panel learns from the sealed order which
// channel's company takes no messages now, or holds them back. The channel may
// be picked all the same, and what the customer said counts more.
func TestChannelsTellHowSendersStand(t *testing.T) {
	t.Parallel()
	hold := func(fail bool) func(*testing.T, *apiBench) {
		return func(t *testing.T, b *apiBench) {
			h := conversations.Hold{Reason: conversations.FailureAuth, Until: b.store.Now().Add(time.Hour), Fail: fail}
			if err := b.store.HoldSender(t.Context(), "acme-whatsapp", h); err != nil {
				t.Fatal(err)
			}
		}
	}
	said := func(subject conversations.NoticeSubject, standing conversations.Standing) func(*testing.T, *apiBench) {
		return func(_ *testing.T, b *apiBench) {
			b.note("acme-whatsapp", conversations.Notice{Subject: subject, Name: "pay", Language: "en", Standing: standing, Word: "so", At: b.store.Now()})
		}
	}
	for name, c := range map[string]struct {
		happens func(*testing.T, *apiBench)
		want    string
	}{
		"nothing":                 {func(*testing.T, *apiBench) {}, "map[available:true channel:whatsapp]"},
		"credentials are refused": {hold(true), "map[available:true channel:whatsapp reason:sender_unusable]"},
		"messages wait":           {hold(false), "map[available:true channel:whatsapp reason:sender_held]"},
		"account restricted":      {said(conversations.NoticeAccount, conversations.StandingUnusable), "map[available:true channel:whatsapp reason:sender_unusable]"},
		"account warned":          {said(conversations.NoticeAccount, conversations.StandingLimited), "map[available:true channel:whatsapp]"},
		"a template is paused":    {said(conversations.NoticeTemplate, conversations.StandingUnusable), "map[available:true channel:whatsapp]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := sendersBench(t)
			c.happens(t, b)
			token, sealed := b.session("1042")
			order := b.call(apiCall{method: "GET", path: "/v1/sealed-orders/" + sealed, token: token}).want(t, 200)
			if got := fmt.Sprint(order.get("channels.0")); got != c.want {
				t.Errorf("WhatsApp is %s, want %s", got, c.want)
			}
			if got := fmt.Sprint(order.get("channels.1")); got != "map[available:true channel:sms]" {
				t.Errorf("SMS is %s, though nothing was said of it", got)
			}
			// It is advice: a request by that channel is taken.
			b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: token, body: object{"phone": "082 123 4567", "channel": "whatsapp"}}).want(t, 201)
		})
	}
}
