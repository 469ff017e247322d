// Package providertest is the suite that every messaging provider's adapter
// runs. It holds an adapter to the contract of package providers: what it
// trusts, what it reads, what it says of a call that went wrong, and what it
// never says.
//
//	func TestProvider(t *testing.T) {
//		providertest.Run(t, providertest.Harness{Registration: meta.Registration, ...})
//	}
//
// Cases with long input are files in the adapter's testdata folder, see
// ParseCase and SendCase; "go test -update" rewrites what they expect. Where
// providers differ by their nature, the difference is a field of Features.
package providertest

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

// BaseURL is the name of the setting that every adapter takes the provider's
// address from.
const BaseURL = "base_url"

// ReceivedAt is when the suite's webhooks come in.
var ReceivedAt = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// Harness tells the suite what it cannot know of a provider.
type Harness struct {
	Registration providers.Registration

	// Channel is that of the sender under test; empty: the registration's first.
	Channel conversations.Channel

	// Testdata is the folder of the cases; empty: "testdata".
	Testdata string

	// Values are complete and valid settings without base_url, with a value for
	// every secret: the suite looks for them where they must not be.
	Values     map[string]string
	WebhookURL string
	Siblings   map[string]string

	// SigningKeys are the settings whose values sign webhooks: the current and
	// the previous one.
	SigningKeys []string

	// SignatureHeader is the header that holds the signature. It is empty with
	// Features.Unsigned.
	SignatureHeader string

	// Sign puts the signature that the provider would make with this key into
	// w. It is written from the provider's documents, not with the adapter's
	// own code.
	Sign func(w *providers.Webhook, key string)

	// Webhook is a genuine webhook before it is signed: one inbound text.
	Webhook providers.Webhook

	// Reserialise returns what a middleware could make of the body without
	// changing what it says. The signature of the original must not cover it.
	Reserialise func(body []byte) []byte

	// Outbound is a message that can be sent.
	Outbound conversations.Outbound

	// Accept answers a send as the provider does when it takes the message.
	Accept http.HandlerFunc

	// Refuse answers a send with the provider's own form of refusal, with this
	// status, and message where the provider puts its text for people.
	Refuse func(w http.ResponseWriter, status int, message string)

	Features Features
}

// Features are the differences between providers that are no mistakes.
type Features struct {
	// Timestamped says that the signature covers a time, so that a webhook kept
	// for a day is refused. Without it a replay is found by the message's id.
	Timestamped bool

	// SignsParameters says that the signature covers what a form says, not its
	// bytes, so that another spelling of the same form is trusted.
	SignsParameters bool

	// Unsigned says that the provider signs nothing: the webhook's address ends
	// in the secret, behind Harness.WebhookURL, and says nothing of the body.
	// Sign puts it there.
	Unsigned bool

	// RefusesWith5xx says that a status of 500 and above with the provider's
	// own form of refusal is a refusal. Without it the outcome stays unknown.
	RefusesWith5xx bool
}

// Run runs the whole suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	t.Run("registration", h.testRegistration)
	t.Run("verify", h.testVerify)
	t.Run("parse", h.testParse)
	t.Run("hostile", h.testHostile)
	t.Run("send", h.testSend)
	t.Run("notices", h.testNotices)
	t.Run("statuses", h.testStatuses)
	t.Run("no answer", h.testNoAnswer)
	t.Run("secrets", h.testSecrets)
	t.Run("concurrent use", h.testConcurrent)
	t.Run("handshake and answer", h.testExtras)
}

// bench is one adapter with what surrounds it in a test.
type bench struct {
	providers.Provider
	h     *Harness
	log   *record
	dials *atomic.Int64
}

// bench makes an adapter that talks to base.
func (h *Harness) bench(t testing.TB, base string) *bench {
	t.Helper()
	values := map[string]string{BaseURL: base}
	for k, v := range h.Values {
		values[k] = v
	}
	return h.benchWith(t, values)
}

func (h *Harness) benchWith(t testing.TB, values map[string]string) *bench {
	t.Helper()
	b := &bench{h: h, log: &record{}, dials: &atomic.Int64{}}
	p, err := h.Registration.New(h.settings(values), loopbackClient(t, b.dials), b.log.logger())
	if err != nil {
		t.Fatalf("New with complete settings: %v", err)
	}
	b.Provider = p
	t.Cleanup(func() { h.checkSecrets(t, "the log", b.log.String()) })
	return b
}

func (h *Harness) settings(values map[string]string) providers.Settings {
	return providers.Settings{
		SenderID: "sender_1", Channel: cmp.Or(h.Channel, h.Registration.Channels[0]), MerchantID: "merchant_1",
		WebhookURL: h.WebhookURL, Values: values, Siblings: h.Siblings,
		Now: func() time.Time { return ReceivedAt },
	}
}

// loopbackClient counts its dials and refuses every address that is not on
// this machine.
func loopbackClient(t testing.TB, dials *atomic.Int64) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			host, _, err := net.SplitHostPort(address)
			if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
				t.Errorf("the adapter dials %s, which is not on this machine", address)
				return nil, net.ErrClosed
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// farEnd serves as the provider, and checks that the client it was called with
// is the one the adapter was given.
func farEnd(t testing.TB, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

// send sends the harness's message and returns the *Failure, which it insists
// on for every error, after looking for secrets in it.
func (b *bench) send(ctx context.Context, t testing.TB, o conversations.Outbound) (conversations.Sent, *providers.Failure) {
	t.Helper()
	sent, err := b.Send(ctx, o)
	if err == nil {
		return sent, nil
	}
	b.h.checkSecrets(t, "the error of Send", err.Error())
	f, ok := err.(*providers.Failure) //nolint:errorlint // the dispatcher asks for exactly this type
	if !ok {
		t.Fatalf("Send returned a %T, want a *providers.Failure", err)
	}
	checkFailure(t, f)
	if sent.ProviderID != "" || sent.Status != "" {
		t.Errorf("Send returned %+v beside a failure", sent)
	}
	return sent, f
}

// checkFailure holds a failure to what the contract says of each.
func checkFailure(t testing.TB, f *providers.Failure) {
	t.Helper()
	if _, ok := conversations.FailureReasons[f.Reason]; !ok {
		t.Errorf("the reason %q is not of the closed set", f.Reason)
	}
	if want := providers.Retryable(f.Reason) && !f.Unknown; f.Retryable != want {
		t.Errorf("a failure of reason %s with unknown=%t has retryable=%t, want %t", f.Reason, f.Unknown, f.Retryable, want)
	}
	if f.RetryAfter < 0 || f.RetryAfter > time.Hour || f.RetryAfter > 0 && !f.Retryable {
		t.Errorf("a failure with retryable=%t waits %s", f.Retryable, f.RetryAfter)
	}
}

// checkSecrets looks for secrets, and for what the suite's message and webhook
// say, in a text that is logged.
func (h *Harness) checkSecrets(t testing.TB, where, s string) {
	t.Helper()
	for _, setting := range h.Registration.Settings {
		if v := h.Values[setting.Name]; setting.Secret && v != "" && strings.Contains(s, v) {
			t.Errorf("%s holds the value of %s", where, setting.Name)
		}
	}
	if h.Outbound.Text != "" && strings.Contains(s, h.Outbound.Text) {
		t.Errorf("%s holds the text of the message", where)
	}
	if digits := strings.TrimPrefix(h.Outbound.To.Value, "+"); strings.Contains(s, digits) {
		t.Errorf("%s holds the whole phone number", where)
	}
}

// record is a log that can be read back.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write takes a line of the log.
func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

// String returns all lines so far.
func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

func (r *record) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
