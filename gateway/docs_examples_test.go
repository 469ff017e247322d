package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// TestOMSExample runs the order system of docs/examples/oms as it stands: the
// agent sees the panel in it, its callbacks are verified, and it refunds.
func TestOMSExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "examples", "oms", "server.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(text, []byte("\n")); lines >= 150 {
		t.Errorf("the example has %d lines: who reads it wants less than 150", lines)
	}
	d := newNodeDir(t)
	d.write("server.mjs", text)
	s := newTale(t, newStage(t, stageOptions{Redis: onRealRedis}))
	s.at = "docs/examples/oms"
	oms := d.start([]string{"GATEWAY=" + s.public, "API_KEY=" + demoAPIKey, "PORT=0"}, "server.mjs")
	address := oms.says("listening ")
	s.stopGateway()
	m := s.config.Merchants[0]
	m.AllowedOrigins = append(m.AllowedOrigins, address) // as the merchant's configuration would name it
	s.startGateway()

	agent := startChromium(t).person(t, "agent", desk, address)
	agent.sees("What the customer gets")
	agent.chooses("WhatsApp")
	agent.presses("Send request for")
	s.customerReceives([]string{"payment", "whatsapp"})
	s.customerOpens(nil)
	s.customerPays([]string{"approved"})
	if got := oms.says("callback payment_request.paid"); got != "1047 paid" {
		t.Errorf("the callback says %q, want 1047 paid", got)
	}
	agent.presses("Refund ZAR 10.00")
	if got := oms.says("callback payment_request.refunded"); got != "1047 partially_refunded" {
		t.Errorf("the callback says %q, want 1047 partially_refunded", got)
	}
	agent.sees("Status: partially_refunded")
	for what, header := range map[string]http.Header{
		"without a signature": {},
		"forged":              {"Webhook-Id": {"evt_1"}, "Webhook-Timestamp": {"1795341600"}, "Webhook-Signature": {"v1,AAAA"}},
	} {
		if r := s.call(http.MethodPost, address+"/callbacks", header, map[string]any{"type": "payment_request.paid"}); r.status != http.StatusUnauthorized {
			t.Errorf("a callback %s is answered with %d", what, r.status)
		}
	}
}
