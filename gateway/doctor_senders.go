package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// The bounds of asking a provider about one sender. A Checker ends when its
// context does; one that does not is left behind after the second time.
const (
	examWithin = 30 * time.Second
	examLeave  = examWithin + 2*time.Second
	// examsAtOnce is how many senders are asked about at the same time.
	examsAtOnce = 8
)

// namedFinding is a finding whose name is known only once it is there.
type namedFinding struct {
	name string
	finding
}

// exam is everything that is looked at of one sender or one merchant, in the
// order in which it is printed.
type exam struct {
	heading string
	secrets []string // never printed, whoever quotes them
	parts   []func(context.Context) []namedFinding
}

// adapterMaker makes the adapter of a sender.
type adapterMaker func(*SenderConfig) (providers.Provider, error)

// calling returns what makes adapters that call their providers through client.
func calling(client *http.Client) adapterMaker {
	return func(s *SenderConfig) (providers.Provider, error) {
		return newProvider(s, nil, client, slog.New(slog.DiscardHandler))
	}
}

// senderStates tells what all processes know of a sender, and changes nothing.
type senderStates interface {
	SenderState(ctx context.Context, senderID string) (conversations.SenderState, error)
}

// senderExams lists the senders of all merchants with what is looked at.
// adapter may be nil: then no provider is asked. states may be nil: then what
// is known in Redis is not looked at.
func senderExams(cfg *Config, adapter adapterMaker, states senderStates) []exam {
	var exams []exam
	for _, m := range cfg.Merchants {
		for _, s := range m.Senders {
			heading := fmt.Sprintf("sender %s (%s at %s, merchant %s)", s.ID, s.Channel, s.Provider, s.Merchant.ID)
			exams = append(exams, exam{heading, secretsOf(s), []func(context.Context) []namedFinding{
				func(context.Context) []namedFinding { return []namedFinding{lookAtAddress(s)} },
				func(ctx context.Context) []namedFinding {
					return hearsay(lookAtState(ctx, s, states, time.Now()), adapter == nil)
				},
				func(ctx context.Context) []namedFinding { return askProvider(ctx, s, adapter, examLeave) },
			}})
		}
	}
	return exams
}

// takeExams takes several at a time. Each channel brings the findings of the one
// in its place, once.
func takeExams(ctx context.Context, exams []exam) []chan []namedFinding {
	turns := make(chan struct{}, examsAtOnce)
	found := make([]chan []namedFinding, len(exams))
	for i, s := range exams {
		found[i] = make(chan []namedFinding, 1)
		go func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			var all []namedFinding
			for _, look := range s.parts {
				all = append(all, look(ctx)...)
			}
			for f := range all {
				all[f].finding = withoutSecrets(all[f].finding, s.secrets)
			}
			found[i] <- all
		}()
	}
	return found
}

// withoutSecrets takes out of a finding what nobody but the provider may read.
// Adapters do not put it there; what they quote of a provider's answer might.
func withoutSecrets(f finding, secrets []string) finding {
	for _, secret := range secrets {
		f.found = strings.ReplaceAll(f.found, secret, redacted)
		f.mend = strings.ReplaceAll(f.mend, secret, redacted)
	}
	f.found, f.mend = printable(f.found), printable(f.mend)
	return f
}

// shortestSecret is the length below which a secret is not looked for in what
// is printed: it would be found in the middle of words.
const shortestSecret = 6

func secretsOf(s *SenderConfig) []string {
	r, _ := providerNamed(s.Provider)
	var secrets []string
	for _, x := range r.Settings {
		if v := s.Settings[x.Name]; x.Secret && len(v) >= shortestSecret {
			secrets = append(secrets, v)
		}
	}
	return longestFirst(secrets)
}

func longestFirst(secrets []string) []string {
	// The longest goes first: one may begin with another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return secrets
}

// printable keeps a text on its line.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
}

// askProvider lets the adapter look at the provider's side. after bounds an
// adapter that does not heed its context.
func askProvider(ctx context.Context, s *SenderConfig, adapter adapterMaker, after time.Duration) []namedFinding {
	if adapter == nil {
		return nil
	}
	if names := placeholders(s); len(names) > 0 {
		return []namedFinding{{"provider", finding{statusWarn, "not asked: still as in the printed example: " + strings.Join(names, ", "),
			"put in what the provider gave you; " + providerGuide(s.Provider) + " says where to find it"}}}
	}
	p, err := adapter(s)
	if err != nil {
		return []namedFinding{{"provider", finding{statusFail, oneLine(err), "change the sender's settings as said"}}}
	}
	checker, ok := p.(providers.Checker)
	if !ok {
		return []namedFinding{{"provider", finding{statusWarn, "not asked: there is no check for " + s.Provider, "see " + providerGuide(s.Provider) + ", and send a message to yourself"}}}
	}
	ctx, cancel := context.WithTimeout(ctx, examWithin)
	defer cancel()
	answered := make(chan []providers.Finding, 1)
	go func() { answered <- checker.Check(ctx) }()
	gone := time.NewTimer(after)
	defer gone.Stop()
	select {
	case found := <-answered:
		return judged(found)
	case <-gone.C:
		return []namedFinding{{"provider", finding{statusFail, "does not answer", "see that " + s.Settings["base_url"] + " can be reached from here"}}}
	}
}

// lookAtState tells what Redis knows of a sender: what its provider has said
// lately that is no good news, and whether its messages are held back.
func lookAtState(ctx context.Context, s *SenderConfig, states senderStates, now time.Time) []namedFinding {
	if states == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	state, err := states.SenderState(ctx, s.ID)
	if err != nil {
		return []namedFinding{{"messages", finding{statusWarn, "not known, because Redis does not answer", ""}}}
	}
	messages := finding{statusOK, "not held back", ""}
	if h := state.Hold; h != nil {
		messages = finding{statusWarn, holdText(*h), "nothing, if it ends by itself; if it comes back, see what the provider says below"}
		if h.Fail {
			messages.status = statusFail
		}
	}
	found := []namedFinding{{"messages", messages}}
	for _, n := range state.Notices {
		if f, bad := judgedNotice(n, s, now); bad {
			found = append(found, f)
		}
	}
	return found
}

// judgedNotice tells of a notice that is no good news. One about a template
// that the sender does not use is for the record.
func judgedNotice(n conversations.Notice, s *SenderConfig, now time.Time) (namedFinding, bool) {
	name, status := "told of "+string(n.Subject), statusWarn
	switch {
	case n.Standing == conversations.StandingUsable || ended(n, now):
		return namedFinding{}, false
	case !concerns(n, s):
		return namedFinding{name, finding{statusOK, "not used here: " + noticeText(n), ""}}, true
	case n.Standing == conversations.StandingUnusable:
		status = statusFail
	}
	return namedFinding{name, finding{status, noticeText(n) + " Told " + moment(n.At) + ".", noticeMends[n.Subject]}}, true
}

// noticeMends say what to do about each kind of notice.
var noticeMends = map[conversations.NoticeSubject]string{
	conversations.NoticeTemplate: "look at the template in the provider's console; this goes away when the provider tells that it is approved",
	conversations.NoticeQuality:  "see that customers expect these messages: a template that they block or report is paused",
	conversations.NoticeCategory: "ask the provider for a review in its console, or submit the template again with our wording",
	conversations.NoticeNumber:   "look at the number in the provider's console",
	conversations.NoticeLimit:    "look at the number in the provider's console",
	conversations.NoticeAccount:  "look at the account in the provider's console; it says what to do, and how to object",
	conversations.NoticeOther:    "look at the account in the provider's console",
}

// judged puts an adapter's findings into the doctor's words.
func judged(found []providers.Finding) []namedFinding {
	if len(found) == 0 {
		return []namedFinding{{"provider", finding{statusWarn, "not asked: nothing that could be looked at is configured", ""}}}
	}
	statuses := map[providers.FindingState]checkStatus{
		providers.FindingOK: statusOK, providers.FindingWarning: statusWarn, providers.FindingWrong: statusFail,
	}
	out := make([]namedFinding, 0, len(found))
	for _, f := range found {
		status, known := statuses[f.State]
		if !known {
			status = statusWarn
		}
		out = append(out, namedFinding{f.Check, finding{status, f.Detail, f.Mend}})
	}
	return out
}

// placeholders names the secrets that are still those of the printed example:
// no company is asked with them.
func placeholders(s *SenderConfig) []string {
	var names []string
	r, _ := providerNamed(s.Provider)
	for _, x := range r.Settings {
		if x.Secret && strings.HasPrefix(s.Settings[x.Name], placeholder) {
			names = append(names, x.Name)
		}
	}
	return names
}

func providerGuide(provider string) string { return "docs/providers/" + provider + ".md" }

// longestWebhook is how long an address may be that is set for one number at
// Meta.
const longestWebhook = 200

// lookAtAddress looks at the sender's webhook address, which the provider calls
// from the internet, without calling it.
func lookAtAddress(s *SenderConfig) namedFinding {
	const name = "public address"
	address := s.WebhookURL()
	warn := func(why, mend string) namedFinding {
		return namedFinding{name, finding{statusWarn, address + ": " + why, mend}}
	}
	u, err := url.Parse(address)
	if err != nil {
		return namedFinding{name, finding{statusFail, "public_url makes no address", "set public_url of merchant " + s.Merchant.ID + " to https://HOST"}}
	}
	public := "set public_url of merchant " + s.Merchant.ID + " to the https address that the internet knows"
	switch host := u.Hostname(); {
	case isInside(host) && isInside(hostOf(s.Settings["base_url"])):
		return warn("only programs inside this network can call it, such as a simulated provider", "")
	case isInside(host):
		return namedFinding{name, finding{statusFail, address + ": " + s.Provider + " cannot call it, so no reply and no status would arrive", public}}
	case u.Scheme != "https":
		return namedFinding{name, finding{statusFail, address + ": providers call https alone", public}}
	case isReserved(host):
		return warn("this name is not one of the internet", public)
	case isAddress(host):
		return warn("it is a number and no name, and providers want a certificate that browsers trust", public)
	case strings.Contains(host, "_"):
		return warn("Twilio refuses host names with an underscore", public)
	case len(address) > longestWebhook:
		return warn("Meta takes at most 200 characters for a number's own address", "give the sender a shorter id")
	}
	return namedFinding{name, finding{statusOK, address, ""}}
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// isInside tells that a host is this machine or one of a private network.
func isInside(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return isLoopback(host) || !strings.Contains(host, ".") || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".internal")
}

// isReserved tells that a name is set aside for examples and tests (RFC 2606).
func isReserved(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, name := range []string{"example", "test", "invalid", "example.com", "example.net", "example.org"} {
		if host == name || strings.HasSuffix(host, "."+name) {
			return true
		}
	}
	return false
}
