package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	checkoutcybersource "paythread/checkout/platforms/cybersource"
	"paythread/simulator"
)

// saidByTLS is what "simulate --tls" prints.
var saidByTLS = regexp.MustCompile(`(?s)at (https://localhost:\d+)/\nTrust its certificate authority: (\S+)\n`)

// TestSimulateServesHTTPS: the program makes an authority, says where it lies,
// and whoever trusts it can call everything, also by the links that are given.
func TestSimulateServesHTTPS(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan int, 1)
	var complaint bytes.Buffer
	go func() {
		code := run(ctx, []string{"simulate", "--listen", "localhost:0", "--tls", "--tls-dir", dir}, nil, in, &complaint, nil)
		_ = in.Close() // the reader sees the end
		done <- code
	}()
	t.Cleanup(func() {
		cancel()
		go func() { _, _ = io.Copy(io.Discard, out) }()
		if code := <-done; code != exitOK {
			t.Errorf("exit code %d: %s", code, complaint.String())
		}
	})
	var said string
	for buf := make([]byte, 4096); !saidByTLS.MatchString(said); {
		n, err := out.Read(buf)
		said += string(buf[:n])
		if err != nil {
			t.Fatalf("it said %q and then %v", said, err)
		}
	}
	found := saidByTLS.FindStringSubmatch(said)
	if found[2] != filepath.Join(dir, simulator.AuthorityFile) {
		t.Errorf("the authority is at %s, the program says %s", dir, found[2])
	}
	text, err := os.ReadFile(found[2])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	signedOverTLS(t, client, found[1])
	for _, path := range []string{"/", "/oms", "/cybersource/test-cards", "/cybersource/outcomes"} {
		resp, err := client.Get(found[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || strings.Contains(string(body), "http://localhost") {
			t.Errorf("%s: got %d, %v, links to plain http: %t", path, resp.StatusCode, err, strings.Contains(string(body), "http://localhost"))
		}
	}
}

// signedOverTLS: what our own signers sign, host and port included, is taken.
func signedOverTLS(t *testing.T, client *http.Client, base string) {
	t.Helper()
	credentials := checkoutcybersource.Credentials{MerchantID: demoCyberSource.ID, KeyID: demoCyberSource.KeyID, SharedSecret: demoCyberSource.SharedSecret}
	byJWT, err := checkoutcybersource.NewJWTSigner(credentials, time.Now, uuid.NewString)
	if err != nil {
		t.Fatal(err)
	}
	bySignature, err := checkoutcybersource.NewHTTPSigner(credentials, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for name, signer := range map[string]checkoutcybersource.Signer{"JWT": byJWT, "HTTP Signature": bySignature} {
		body := []byte(`{"query":"id:1","sort":"submitTimeUtc:desc"}`)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/tss/v2/searches", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if err := signer.Sign(req, body, time.Time{}); err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // its head tells enough
		if resp.StatusCode != http.StatusCreated {
			t.Errorf("%s: got %s", name, resp.Status)
		}
	}
}

// TestSimulateRefusesHalfACertificate: both files or none.
func TestSimulateRefusesHalfACertificate(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"simulate", "--tls-cert", "cert.pem"}, {"simulate", "--tls-key", "key.pem"},
	} {
		var complaint bytes.Buffer
		if code := run(t.Context(), args, nil, io.Discard, &complaint, nil); code != exitUsage || !strings.Contains(complaint.String(), "together") {
			t.Errorf("%v: exit code %d, %s", args, code, complaint.String())
		}
	}
	missing := filepath.Join(t.TempDir(), "none.pem")
	var complaint bytes.Buffer
	if code := run(t.Context(), []string{"simulate", "--tls-cert", missing, "--tls-key", missing}, nil, io.Discard, &complaint, nil); code != exitFailed {
		t.Errorf("missing files: exit code %d, %s", code, complaint.String())
	}
}

// TestWorldNotifiesTheGateway: what the demo's platform signs, the demo's
// gateway takes, and what it does not sign it does not.
func TestWorldNotifiesTheGateway(t *testing.T) {
	t.Parallel()
	documented := documentedSenders(t)
	s := newDocumentedStage(t, documented["acme-wa"], documented["acme-sms"])
	for forged, want := range map[bool]int{false: http.StatusOK, true: http.StatusForbidden} {
		body, err := json.Marshal(map[string]any{
			"productId": "payments", "eventType": "payments.capture.status.accepted", "forged": forged,
			"payload": map[string]any{"id": "7000000000000000000000", "status": "PENDING"},
		})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(s.outside.URL+"/cybersource/notifications", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ Statuses []int }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		_ = resp.Body.Close()
		if err != nil || len(answer.Statuses) != 1 || answer.Statuses[0] != want {
			t.Errorf("forged %t: the gateway answered %v, %v; want %d", forged, answer.Statuses, err, want)
		}
	}
}
