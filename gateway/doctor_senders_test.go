package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// checked is a provider whose side of the sender is as a test says.
type checked struct {
	providers.Provider
	check func(context.Context) []providers.Finding
}

func (c checked) Check(ctx context.Context) []providers.Finding { return c.check(ctx) }

// finds makes adapters that all find the same.
func finds(found ...providers.Finding) adapterMaker {
	return func(*SenderConfig) (providers.Provider, error) {
		return checked{check: func(context.Context) []providers.Finding { return found }}, nil
	}
}

// aSender is a sender of the example that is past its placeholders.
func aSender(t *testing.T, change ...func(*SenderConfig)) *SenderConfig {
	t.Helper()
	s := base(t).Merchants[0].Senders[0]
	for _, name := range []string{"access_token", "app_secret", "verify_token"} {
		s.Settings[name] = name + "-of-the-test"
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func TestDoctorAsksProviders(t *testing.T) {
	t.Parallel()
	placeheld := func(s *SenderConfig) { s.Settings["app_secret"] = placeholder }
	for name, tt := range map[string]struct {
		change  func(*SenderConfig)
		adapter adapterMaker
		want    string // the findings as they are printed, without the mends
	}{
		"fine": {nil, finds(providers.Finding{Check: "access token", State: providers.FindingOK, Detail: "good until 2027"}), "ok access token: good until 2027\n"},
		"several": {nil, finds(
			providers.Finding{Check: "template", State: providers.FindingWarning, Detail: "in review"},
			providers.Finding{Check: "webhook address", State: providers.FindingWrong, Detail: "another one"},
		), "warn template: in review\nfail webhook address: another one\n"},
		"a state that nobody knows": {nil, finds(providers.Finding{Check: "x", State: "odd", Detail: "y"}), "warn x: y\n"},
		"nothing found":             {nil, finds(), "warn provider: not asked: nothing that could be looked at is configured\n"},
		"no check": {nil, func(*SenderConfig) (providers.Provider, error) { return struct{ providers.Provider }{}, nil },
			"warn provider: not asked: there is no check for meta\n"},
		"settings that the adapter refuses": {nil, func(*SenderConfig) (providers.Provider, error) { return nil, errors.New("meta: a\nb") },
			"fail provider: meta: a; b\n"},
		"placeholders": {placeheld, func(*SenderConfig) (providers.Provider, error) { return nil, errors.New("it was asked") },
			"warn provider: not asked: still as in the printed example: app_secret\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := aSender(t)
			if tt.change != nil {
				tt.change(s)
			}
			var got strings.Builder
			for _, f := range askProvider(t.Context(), s, tt.adapter, longestWait) {
				fmt.Fprintf(&got, "%s %s: %s\n", f.status, f.name, f.found)
				if f.status == statusFail && f.mend == "" && tt.adapter == nil {
					t.Errorf("%s does not say how to mend it", f.name)
				}
			}
			if got.String() != tt.want {
				t.Errorf("found\n%swant\n%s", got.String(), tt.want)
			}
		})
	}
}

// TestDoctorLeavesAProviderThatHangs: an adapter that heeds no end is left.
func TestDoctorLeavesAProviderThatHangs(t *testing.T) {
	t.Parallel()
	ends := make(chan struct{})
	defer close(ends)
	hangs := func(*SenderConfig) (providers.Provider, error) {
		return checked{check: func(context.Context) []providers.Finding { <-ends; return nil }}, nil
	}
	found := askProvider(t.Context(), aSender(t), hangs, time.Millisecond)
	if len(found) != 1 || found[0].status != statusFail || !strings.Contains(found[0].mend, "https://graph.facebook.com") {
		t.Errorf("found %+v, want that it does not answer", found)
	}
}

// TestDoctorPrintsSenders: senders are asked at the same time, and printed in
// the order of the configuration, without secrets and each finding on its line.
func TestDoctorPrintsSenders(t *testing.T) {
	t.Parallel()
	cfg := base(t)
	first, second := aSender(t), aSender(t)
	first.ID, second.ID = "first", "second"
	first.Settings["access_token"], first.Settings["app_secret"] = "EAAG-token", "EAAG-token-and-more"
	cfg.Merchants[0].Senders = []*SenderConfig{first, second}
	secondAsked := make(chan struct{})
	var asked atomic.Int32
	adapter := func(s *SenderConfig) (providers.Provider, error) {
		return checked{check: func(ctx context.Context) []providers.Finding {
			asked.Add(1)
			if s == second {
				close(secondAsked)
				return []providers.Finding{{Check: "number", State: providers.FindingOK, Detail: "+27 60 *** 001"}}
			}
			select { // answers only once the other one was asked
			case <-secondAsked:
			case <-ctx.Done():
			}
			return []providers.Finding{
				{Check: "access token", State: providers.FindingWrong, Detail: "refused:\nEAAG-token and EAAG-token-and-more", Mend: "not EAAG-token"},
				{Check: "app", State: providers.FindingWarning, Detail: "not live", Mend: "publish it"},
			}
		}}, nil
	}
	var out strings.Builder
	if examine(t.Context(), &out, []doctorCheck{{"a", func(context.Context) finding { return finding{statusOK, "fine", ""} }}}, senderExams(cfg, adapter, nil)) {
		t.Error("a provider's failure does not fail the examination")
	}
	want := `ok    a  fine

sender first (whatsapp at meta, merchant acme)
warn  public address  https://pay.acme.example/webhooks/first: this name is not one of the internet
                      to mend: set public_url of merchant acme to the https address that the internet knows
fail  access token    refused: [redacted] and [redacted]
                      to mend: not [redacted]
warn  app             not live
                      to mend: publish it

sender second (whatsapp at meta, merchant acme)
warn  public address  https://pay.acme.example/webhooks/second: this name is not one of the internet
                      to mend: set public_url of merchant acme to the https address that the internet knows
ok    number          +27 60 *** 001

6 checks: 2 ok, 3 warnings, 1 failed
`
	if out.String() != want || asked.Load() != 2 {
		t.Errorf("%d senders asked, printed\n%s\nwant\n%s", asked.Load(), out.String(), want)
	}
}

func TestDoctorLooksAtTheAddress(t *testing.T) {
	t.Parallel()
	const graph, near = "https://graph.facebook.com", "http://127.0.0.1:8090/meta"
	for _, tt := range []struct {
		public, provider string
		want             checkStatus
		says             string
	}{
		{"https://pay.acme.com", graph, statusOK, "https://pay.acme.com/webhooks/acme-whatsapp"},
		{"https://pay.acme.com:8443", graph, statusOK, ""},
		{"https://pay.acme.example", graph, statusWarn, "not one of the internet"},
		{"https://pay.example.com", graph, statusWarn, "not one of the internet"},
		{"https://notexample.com", graph, statusOK, ""},
		{"http://localhost:8080", graph, statusFail, "meta cannot call it"},
		{"https://10.1.2.3", graph, statusFail, "meta cannot call it"},
		{"https://[fd00::1]", graph, statusFail, "meta cannot call it"},
		{"https://gateway", graph, statusFail, "meta cannot call it"},
		{"https://pay.acme.internal", graph, statusFail, "meta cannot call it"},
		{"http://127.0.0.1:8080", near, statusWarn, "only programs inside this network"},
		{"https://pay.acme.com", near, statusOK, ""},
		{"http://pay.acme.com", graph, statusFail, "https alone"},
		{"https://203.0.113.9", graph, statusWarn, "a number and no name"},
		{"https://pay_here.acme.com", graph, statusWarn, "underscore"},
		{"https://" + strings.Repeat("a.", 100) + "com", graph, statusWarn, "200 characters"},
		{"https://%zz", graph, statusFail, "makes no address"},
	} {
		s := aSender(t, func(s *SenderConfig) { s.Merchant.PublicURL, s.Settings["base_url"] = tt.public, tt.provider })
		f := lookAtAddress(s)
		if f.status != tt.want || !strings.Contains(f.found, tt.says) {
			t.Errorf("%s with %s = %s: %s, want %s with %q", tt.public, tt.provider, f.status, f.found, tt.want, tt.says)
		}
		if f.status == statusFail && f.mend == "" {
			t.Errorf("%s: it is not said how to mend it", tt.public)
		}
	}
}

// knows is what Redis knows of every sender, or why it does not say.
type knows struct {
	state conversations.SenderState
	err   error
}

func (k knows) SenderState(context.Context, string) (conversations.SenderState, error) {
	return k.state, k.err
}

func TestDoctorTellsWhatIsKnown(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	past, later := now.Add(-time.Hour), now.Add(time.Hour)
	notice := func(subject conversations.NoticeSubject, standing conversations.Standing, name, word string, until *time.Time) conversations.Notice {
		return conversations.Notice{Subject: subject, Standing: standing, Name: name, Language: "en", Word: word, At: past, Until: until}
	}
	state := conversations.SenderState{
		Hold: &conversations.Hold{Reason: conversations.FailureAuth, Until: later, Fail: true},
		Notices: []conversations.Notice{
			notice(conversations.NoticeTemplate, conversations.StandingUnusable, "payment_request", "paused", &later),
			notice(conversations.NoticeTemplate, conversations.StandingUnusable, "payment_receipt", "paused", &past),
			notice(conversations.NoticeTemplate, conversations.StandingUnusable, "summer_sale", "rejected", nil),
			notice(conversations.NoticeTemplate, conversations.StandingUsable, "payment_request", "approved", nil),
			notice(conversations.NoticeQuality, conversations.StandingLimited, "payment_request", "yellow", nil),
			notice(conversations.NoticeLimit, conversations.StandingUsable, "", "tier_2k", nil),
		},
	}
	held := state
	held.Notices, held.Hold = nil, &conversations.Hold{Reason: conversations.FailureRate, Until: later}
	for name, tt := range map[string]struct {
		states senderStates
		want   string
	}{
		"not asked": {nil, ""},
		"nothing":   {knows{}, "ok messages: not held back\n"},
		"no answer": {knows{err: errors.New("gone")}, "warn messages: not known, because Redis does not answer\n"},
		"waits":     {knows{state: held}, "warn messages: Messages wait until 2026-11-22 13:00 UTC. The provider asked us to send less.\n"},
		"all that is bad": {knows{state: state}, `fail messages: Messages are not sent until 2026-11-22 13:00 UTC. The provider refuses our credentials.
fail told of template: The template payment_request (en) is paused because of bad feedback. Customers who have not written in the last 24 hours do not get what it says. Until 2026-11-22 13:00 UTC. Told 2026-11-22 11:00 UTC.
ok told of template: not used here: The template summer_sale (en) was rejected. Customers who have not written in the last 24 hours do not get what it says.
warn told of quality: The quality of the template payment_request (en) is yellow. Told 2026-11-22 11:00 UTC.
`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got strings.Builder
			for _, f := range lookAtState(t.Context(), aSender(t), tt.states, now) {
				fmt.Fprintf(&got, "%s %s: %s\n", f.status, f.name, f.found)
				if f.status == statusFail && f.mend == "" {
					t.Errorf("%s does not say how to mend it", f.name)
				}
			}
			if got.String() != tt.want {
				t.Errorf("found\n%swant\n%s", got.String(), tt.want)
			}
		})
	}
}

// TestDoctorAsksTheSimulatedCompanies runs the whole command against companies
// that answer as the real ones do: all is well, then one thing after another
// is not. Whatever it finds, it prints no secret and changes nothing.
func TestDoctorAsksTheSimulatedCompanies(t *testing.T) {
	t.Parallel()
	s := newRig(t, aSingleRedis(t))
	doctor := func(env ...string) (int, string) {
		t.Helper()
		code, out, errs := execute(t, append(slices.Clone(s.env), env...), "doctor", "--config", s.config)
		for _, secret := range []string{demoMeta.AccessToken, demoMeta.AppSecret, demoMeta.VerifyToken, demoTwilio.AuthToken, "another-token-than-it-is"} {
			if strings.Contains(out+errs, secret) {
				t.Errorf("the doctor prints a secret:\n%s%s", out, errs)
			}
		}
		return code, out
	}
	wants := func(code int, out string, wantCode int, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !regexp.MustCompile(`(?m)^` + line).MatchString(out) {
				t.Errorf("no line %q in\n%s", line, out)
			}
		}
		if code != wantCode {
			t.Errorf("exit code %d, want %d:\n%s", code, wantCode, out)
		}
	}

	code, out := doctor()
	wants(code, out, exitOK, `ok +messages +not held back$`, `sender acme-wa \(whatsapp at meta, merchant acme\)$`, `warn +public address +http://127`, `ok +access token`, `ok +number `,
		`ok +template payment_request \(en\)`, `ok +webhook address +Webhooks come to http://127`, `sender acme-sms \(sms at twilio, merchant acme\)$`, `ok +account and auth token`,
		`ok +address for incoming messages`)

	wants(code, out, exitOK, `merchant acme \(unified_checkout\)$`, `ok +credentials `, `ok +clock `, `ok +notifications `, `ok +callbacks +0 endpoints`, `warn +client addresses `)
	code, out = doctor("PAYTHREAD_MERCHANTS_ACME_PLATFORM_SHARED_SECRET=YW5vdGhlci1zZWNyZXQtdGhhbi1pdC1pcy1oZXJlLi4=")
	wants(code, out, exitFailed, `fail +credentials +CyberSource answered 401`, `ok +clock `)

	code, out = doctor("PAYTHREAD_MERCHANTS_ACME_SENDERS_ACME_WA_ACCESS_TOKEN=another-token-than-it-is")
	wants(code, out, exitFailed, `fail +access token .*Meta refused it \(code 190\)`, `ok +account and auth token`)

	code, out = doctor("PAYTHREAD_MERCHANTS_ACME_SENDERS_ACME_SMS_AUTH_TOKEN=another-token-than-it-is")
	wants(code, out, exitFailed, `ok +access token`, `fail +account and auth token .*no webhook can be verified`)

	code, out = doctor("PAYTHREAD_MERCHANTS_ACME_SENDERS_ACME_WA_TEMPLATE_RECEIPT=thanks")
	wants(code, out, exitFailed, `ok +template payment_request`, `fail +template thanks \(en\) +The account has no such template`)

	code, out = doctor("PAYTHREAD_MERCHANTS_ACME_PUBLIC_URL=https://pay.acme.com")
	wants(code, out, exitFailed, `ok +public address +https://pay.acme.com/webhooks/acme-wa`, `fail +template payment_request \(en\) .*opens another address`,
		`fail +webhook address +Webhooks go to 127`, `fail +address for incoming messages +it is another one`)

	unreachable := "PAYTHREAD_MERCHANTS_ACME_SENDERS_ACME_WA_BASE_URL=http://127.0.0.1:1"
	code, out = doctor(unreachable)
	wants(code, out, exitFailed, `fail +access token +Meta could not be reached`)
	code, out, _ = execute(t, append(slices.Clone(s.env), unreachable), "doctor", "--config", s.config, "--local")
	wants(code, out, exitOK, `sender acme-wa`, `warn +public address`)
	if strings.Contains(out, "access token") {
		t.Errorf("a company was asked:\n%s", out)
	}

	control := func(method, path, body string) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.world.URL+path, strings.NewReader(body))
		s.must(err)
		resp, err := s.agent.Do(req)
		s.must(err)
		answer, err := io.ReadAll(resp.Body)
		s.must(errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s %s", method, path, resp.Status, answer)
		}
		return answer
	}
	control("POST", "/meta/templates", `{"name":"payment_request","language":"en","event":"paused","title":"FIRST_PAUSE"}`)
	code, out = doctor()
	wants(code, out, exitFailed, `fail +template payment_request \(en\) +Its status is paused`, `ok +template payment_receipt`)

	options, err := s.options()
	s.must(err)
	store, err := conversations.Connect(t.Context(), options)
	s.must(err)
	at := store.Now()
	s.must(store.NoteSender(t.Context(), "acme-sms", conversations.Notice{Subject: conversations.NoticeAccount, Standing: conversations.StandingUnusable, Word: "suspended", At: at}))
	s.must(store.HoldSender(t.Context(), "acme-sms", conversations.Hold{Reason: conversations.FailureAccount, Until: at.Add(time.Hour), Fail: true}))
	s.must(store.Close())
	code, out = doctor()
	wants(code, out, exitFailed, `fail +messages +Messages are not sent until`, `fail +told of account +Of the account the provider says: suspended`, `ok +messages +not held back$`)

	var seen struct {
		Calls []struct{ Call, Method string }
	}
	s.must(json.Unmarshal(control("GET", "/calls", ""), &seen))
	for _, c := range seen.Calls {
		if c.Method != http.MethodGet && c.Call != "cybersource.searches" { // a search is a POST, and changes nothing
			t.Errorf("the doctor made the call %s %s", c.Method, c.Call)
		}
	}
	if len(seen.Calls) < 10 {
		t.Errorf("%d calls: this test does not see them", len(seen.Calls))
	}
}

// options are those of a store on the rig's Redis, as its configuration has
// them.
func (s *rig) options() (conversations.Options, error) {
	cfg, err := loadConfig(s.config, s.env)
	if err != nil {
		return conversations.Options{}, err
	}
	return cfg.Store()
}
