package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
)

// sendersBench is a bench whose merchant acme has its WhatsApp at Meta.
func sendersBench(t *testing.T) *apiBench {
	t.Helper()
	b := newAPIBench(t)
	wa, sms := b.config.Merchants[0].Senders[0], b.config.Merchants[0].Senders[1]
	wa.Provider, wa.Settings = "meta", Settings{"template_payment": "pay", "template_receipt": "thanks", "access_token": "not-to-be-shown"}
	sms.Provider, sms.PerSecond = "twilio", 3
	return b
}

func (b *apiBench) note(sender string, n conversations.Notice) {
	b.t.Helper()
	if err := b.store.NoteSender(b.t.Context(), sender, n); err != nil {
		b.t.Fatal(err)
	}
}

func TestSenders(t *testing.T) {
	t.Parallel()
	b := sendersBench(t)
	now := b.store.Now().Truncate(time.Second)
	until := now.Add(3 * time.Hour)
	b.note("acme-whatsapp", conversations.Notice{Subject: conversations.NoticeLimit, Standing: conversations.StandingUsable, Word: "tier_2k", At: now.Add(-time.Hour)})
	b.note("acme-whatsapp", conversations.Notice{
		Subject: conversations.NoticeTemplate, Name: "pay", Language: "en", Standing: conversations.StandingUnusable, Word: "paused", Detail: "first_pause", At: now, Until: &until,
	})
	list := b.call(apiCall{method: "GET", path: "/v1/senders", token: acmeKey}).want(t, 200)
	paused := "The template pay (en) is paused because of bad feedback. Customers who have not written in the last 24 hours do not get what it says. Detail: first pause. Until " + moment(until) + "."
	for path, want := range map[string]any{
		"items.0.id": "acme-whatsapp", "items.0.channel": "whatsapp", "items.0.provider": "meta", "items.0.standing": "limited", "items.0.text": paused,
		"items.0.hold": nil, "items.0.notices.0.subject": "template", "items.0.notices.0.name": "pay", "items.0.notices.0.language": "en",
		"items.0.notices.0.standing": "unusable", "items.0.notices.0.word": "paused", "items.0.notices.0.detail": "first_pause",
		"items.0.notices.0.until": until.Format(time.RFC3339), "items.0.notices.0.at": now.Format(time.RFC3339), "items.0.notices.0.ended": false,
		"items.0.notices.0.text": paused, "items.0.notices.1.text": "New customers that may be written to in 24 hours: tier 2k.", "items.0.notices.2": nil,
		"items.1.id": "acme-sms", "items.1.standing": "usable", "items.1.text": "Messages are sent as usual.", "items.1.limits.per_second": 3.0,
		"items.2": nil,
	} {
		if got := list.get(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if notices, ok := list.get("items.1.notices").([]any); !ok || len(notices) != 0 {
		t.Errorf("notices of a sender of which nobody spoke: %v, want []", list.get("items.1.notices"))
	}
	if strings.Contains(list.raw, "not-to-be-shown") {
		t.Errorf("a setting is shown: %s", list.raw)
	}

	held := now.Add(time.Hour)
	if err := b.store.HoldSender(t.Context(), "acme-whatsapp", conversations.Hold{Reason: conversations.FailureAccount, Code: "131042", Until: held, Fail: true}); err != nil {
		t.Fatal(err)
	}
	one := b.call(apiCall{method: "GET", path: "/v1/senders/acme-whatsapp", token: acmeKey}).want(t, 200)
	text := "Messages are not sent until " + moment(held) + ". The provider has restricted our account, or wants to be paid."
	for path, want := range map[string]any{
		"id": "acme-whatsapp", "standing": "unusable", "text": text, "hold.reason": "account", "hold.code": "131042", "hold.fails": true,
		"hold.until": held.Format(time.RFC3339), "hold.text": text,
	} {
		if got := one.get(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
}

// TestSendersAreTheMerchantsOwn: another merchant's sender is not there, and an
// agent sees senders only where that was granted.
func TestSendersAreTheMerchantsOwn(t *testing.T) {
	t.Parallel()
	b := sendersBench(t)
	plain, _ := b.session("1042")
	granted, _ := b.session("1043", object{"grants": []string{"read_all"}})
	acting, _ := b.session("1044", object{"grants": []string{"act_all"}})
	for _, c := range []struct {
		name, token, path string
		status            int
		code, reason      string
	}{
		{"a server", acmeKey, "/v1/senders", 200, "", ""},
		{"a server", acmeKey, "/v1/senders/acme-sms", 200, "", ""},
		{"another merchant's", acmeKey, "/v1/senders/beta-whatsapp", 404, "not_found", ""},
		{"nobody's", acmeKey, "/v1/senders/acme-fax", 404, "not_found", ""},
		{"another merchant", betaKey, "/v1/senders/acme-sms", 404, "not_found", ""},
		{"an agent", plain, "/v1/senders", 403, "forbidden", "not_granted"},
		{"an agent", plain, "/v1/senders/acme-sms", 403, "forbidden", "not_granted"},
		{"an agent who may act", acting, "/v1/senders", 403, "forbidden", "not_granted"},
		{"an agent who may read", granted, "/v1/senders", 200, "", ""},
		{"an agent who may read", granted, "/v1/senders/acme-sms", 200, "", ""},
		{"an agent who may read", granted, "/v1/senders/beta-whatsapp", 404, "not_found", ""},
	} {
		r := b.call(apiCall{method: "GET", path: c.path, token: c.token})
		if c.status != 200 {
			r.problem(t, c.status, c.code, c.reason)
			continue
		}
		r.want(t, 200)
	}
	list := b.call(apiCall{method: "GET", path: "/v1/senders", token: betaKey}).want(t, 200)
	if list.text("items.0.id") != "beta-whatsapp" || list.get("items.1") != nil {
		t.Errorf("beta lists %s", list.raw)
	}
	b.call(apiCall{method: "GET", path: "/v1/senders?limit=5", token: acmeKey}).want(t, 422)
	b.call(apiCall{method: "POST", path: "/v1/senders", token: acmeKey, body: object{}}).want(t, 405)
}

func TestStandingOf(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	past, later := now.Add(-time.Minute), now.Add(time.Minute)
	notice := func(subject conversations.NoticeSubject, standing conversations.Standing, name string, until *time.Time) conversations.Notice {
		return conversations.Notice{Subject: subject, Standing: standing, Name: name, Word: "said", At: past, Until: until}
	}
	const usable, limited, unusable = conversations.StandingUsable, conversations.StandingLimited, conversations.StandingUnusable
	hold := func(fail bool) *conversations.Hold {
		return &conversations.Hold{Reason: conversations.FailureRate, Until: later, Fail: fail}
	}
	for name, tt := range map[string]struct {
		state conversations.SenderState
		want  conversations.Standing
		says  string
	}{
		"nothing known":              {conversations.SenderState{}, usable, "as usual"},
		"held":                       {conversations.SenderState{Hold: hold(false)}, limited, "Messages wait until 2026-11-22 12:01 UTC. The provider asked us to send less."},
		"failing":                    {conversations.SenderState{Hold: hold(true)}, unusable, "Messages are not sent until"},
		"banned":                     {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeAccount, unusable, "", nil)}}, unusable, "Nothing can be sent"},
		"banned until then":          {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeAccount, unusable, "", &past)}}, usable, "as usual"},
		"banned until later":         {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeAccount, unusable, "", &later)}}, unusable, "12:01"},
		"number lost":                {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeNumber, unusable, "", nil)}}, unusable, "number"},
		"template paused":            {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeTemplate, unusable, "pay", nil)}}, limited, "24 hours"},
		"a template of one language": {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeTemplate, unusable, "danke", nil)}}, limited, "24 hours"},
		"another template paused":    {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeTemplate, unusable, "sale", nil)}}, usable, "as usual"},
		"a warning":                  {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeOther, limited, "", nil)}}, limited, "said"},
		"good news":                  {conversations.SenderState{Notices: []conversations.Notice{notice(conversations.NoticeAccount, usable, "", nil)}}, usable, "as usual"},
		"a paused template says more than a warning": {conversations.SenderState{Notices: []conversations.Notice{
			notice(conversations.NoticeOther, limited, "", nil), notice(conversations.NoticeTemplate, unusable, "pay", nil), notice(conversations.NoticeNumber, limited, "", nil),
		}}, limited, "The template pay"},
		"a ban says more than a hold": {conversations.SenderState{Hold: hold(false), Notices: []conversations.Notice{notice(conversations.NoticeAccount, unusable, "", nil)}}, unusable, "account"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, text := standingOf(&SenderConfig{Settings: Settings{"template_payment": "pay", "template_receipt": "en=thanks, de=danke"}}, tt.state, now)
			if got != tt.want || !strings.Contains(text, tt.says) {
				t.Errorf("standing %s: %s, want %s with %q", got, text, tt.want, tt.says)
			}
		})
	}
}

// TestNoticesInWords: whatever a company says becomes sentences.
func TestNoticesInWords(t *testing.T) {
	t.Parallel()
	for want, n := range map[string]conversations.Notice{
		"The template pay (de) was rejected. Customers who have not written in the last 24 hours do not get what it says. Detail: invalid format.": {Subject: conversations.NoticeTemplate, Standing: conversations.StandingUnusable, Name: "pay", Language: "de", Word: "rejected", Detail: "invalid_format"},
		"The template pay (de) is approved.":                           {Subject: conversations.NoticeTemplate, Standing: conversations.StandingUsable, Name: "pay", Language: "de", Word: "approved"},
		"The template pay (de) is some new word.":                      {Subject: conversations.NoticeTemplate, Standing: conversations.StandingLimited, Name: "pay", Language: "de", Word: "some_new_word"},
		"The quality of the template pay (de) is red. Before: yellow.": {Subject: conversations.NoticeQuality, Standing: conversations.StandingLimited, Name: "pay", Language: "de", Word: "red", Detail: "yellow"},
		"The template pay (de) is in the category marketing now. It costs more, and not every customer gets it. Before: utility.": {Subject: conversations.NoticeCategory, Standing: conversations.StandingLimited, Name: "pay", Language: "de", Word: "marketing", Detail: "utility"},
		"Of the account the provider says: account restriction. Nothing can be sent. Detail: restricted biz initiated messaging.": {Subject: conversations.NoticeAccount, Standing: conversations.StandingUnusable, Word: "account_restriction", Detail: "restricted_biz_initiated_messaging"},
		"Of the number the provider says: flagged.":          {Subject: conversations.NoticeNumber, Standing: conversations.StandingLimited, Word: "flagged"},
		"The provider says: two step verification disabled.": {Subject: conversations.NoticeOther, Standing: conversations.StandingLimited, Word: "two_step_verification_disabled"},
	} {
		if got := noticeText(n); got != want {
			t.Errorf("%s says %q, want %q", n.Subject, got, want)
		}
	}
	for reason := range conversations.FailureReasons {
		if text := holdText(conversations.Hold{Reason: reason}); strings.HasSuffix(text, "UTC. ") {
			t.Errorf("a hold for %s says no reason: %s", reason, text)
		}
	}
}

func TestLimitsInForce(t *testing.T) {
	t.Parallel()
	for _, r := range providerRegistrations {
		for _, channel := range r.Channels {
			known := r.Limits[channel]
			if got := limitsInForce(&SenderConfig{Provider: r.Name, Channel: channel}); got != known {
				t.Errorf("%s on %s: %+v, want the provider's own %+v", r.Name, channel, got, known)
			}
			strict := limitsInForce(&SenderConfig{Provider: r.Name, Channel: channel, PerSecond: 1})
			if strict.PerSecond != 1 || strict.Burst > 1 || strict.PairEvery != known.PairEvery {
				t.Errorf("%s on %s with per_second 1: %+v", r.Name, channel, strict)
			}
		}
	}
	if got := fmt.Sprint(limitsInForce(&SenderConfig{PerSecond: 7})); !strings.Contains(got, "7") {
		t.Errorf("per_second 7 gives %s", got)
	}
}
