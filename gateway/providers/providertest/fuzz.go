package providertest

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"paythread/gateway/providers"
)

// quiet is the log of a server that is meant to be misused.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// FuzzParse feeds Parse with changed bodies, beginning with those of testdata.
func FuzzParse(f *testing.F, h Harness) {
	for _, c := range h.parseCases(f) {
		f.Add(c.Webhook.Method, c.Webhook.Header.Get("Content-Type"), c.Webhook.Query.Encode(), c.Webhook.Body)
	}
	b := h.bench(f, "https://provider.invalid")
	f.Fuzz(func(t *testing.T, method, contentType, rawQuery string, body []byte) {
		query, err := url.ParseQuery(rawQuery)
		if err != nil {
			t.Skip("the edge hands over parsed queries only")
		}
		w := providers.Webhook{
			Method: method, URL: h.WebhookURL, Query: query, Body: body, ReceivedAt: ReceivedAt,
			Header: http.Header{"Content-Type": {contentType}},
		}
		got, err := b.Parse(w)
		if err != nil && (!errors.Is(err, providers.ErrUnreadable) || len(got) > 0) {
			t.Errorf("got %d reports and %v, want ErrUnreadable alone", len(got), err)
		}
		checkInbound(t, w, got)
	})
}

// FuzzVerify feeds Verify with changed signatures and bodies. What was signed
// with a right key is trusted, the same signature over another body is not; of
// an unsigned webhook, no secret but a right one is.
func FuzzVerify(f *testing.F, h Harness) {
	genuine := h.webhook()
	h.Sign(&genuine, h.Values[h.SigningKeys[0]])
	right := []string{h.signature(&genuine)}
	if h.Features.Unsigned {
		for _, name := range h.SigningKeys[1:] {
			right = append(right, h.Values[name])
		}
	}
	f.Add(right[0], genuine.Body)
	f.Add("", genuine.Body)
	for _, c := range h.parseCases(f) {
		f.Add(right[0], c.Webhook.Body)
	}
	b := h.bench(f, "https://provider.invalid")
	f.Fuzz(func(t *testing.T, signature string, body []byte) {
		w := genuine
		w.Header, w.Body = w.Header.Clone(), body
		h.setSignature(&w, signature)
		err := b.Verify(w)
		if err != nil && err != providers.ErrSignature { //nolint:errorlint // exactly this
			t.Errorf("got %v, want ErrSignature itself", err)
		}
		secret, _, _ := strings.Cut(signature, "?") // the query is no part of it
		switch same := string(body) == string(genuine.Body); {
		case err != nil && signature == right[0] && (same || h.Features.Unsigned):
			t.Error("the genuine webhook is refused")
		case err == nil && h.Features.Unsigned && !slices.Contains(right, secret):
			t.Errorf("the secret %q is trusted", secret)
		case err == nil && !same && !h.Features.SignsParameters && !h.Features.Unsigned:
			t.Errorf("the signature %q is trusted over another body", signature)
		}
	})
}
