package unifiedcheckout

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"paythread/checkout/platforms"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	const keys = "5f0d8f3e-6a3b-4c55-9d5c-2f4b1a7c9e10:ZGVtby1ub3RpZmljYXRpb24ta2V5LW5vdC1hLXNlY3I="
	for name, tt := range map[string]struct {
		status int           // 0: nobody listens
		off    time.Duration // of their clock
		keys   string
		want   map[string]platforms.FindingState
		told   string // in some finding
	}{
		"all is well":     {201, 0, keys, map[string]platforms.FindingState{"credentials": "ok", "clock": "ok", "notifications": "ok"}, "one of webhook_keys"},
		"wrong key":       {401, 0, keys, map[string]platforms.FindingState{"credentials": "wrong", "clock": "ok"}, "shared_secret"},
		"wrong clock":     {401, -3 * time.Minute, keys, map[string]platforms.FindingState{"credentials": "wrong", "clock": "wrong"}, "set the clock first"},
		"drifting clock":  {201, 20 * time.Second, keys, map[string]platforms.FindingState{"credentials": "ok", "clock": "warning"}, "20s behind"},
		"within a second": {201, -time.Second, keys, map[string]platforms.FindingState{"clock": "ok"}, ""},
		"may not search":  {403, 0, keys, map[string]platforms.FindingState{"credentials": "wrong"}, "Transaction Search"},
		"another address": {404, 0, keys, map[string]platforms.FindingState{"credentials": "wrong"}, "base_url"},
		"out of order":    {503, 0, keys, map[string]platforms.FindingState{"credentials": "warning"}, "correlation id c-1"},
		"no keys":         {201, 0, "", map[string]platforms.FindingState{"credentials": "ok", "notifications": "warning"}, "webhook_keys"},
		"unreachable":     {0, 0, keys, map[string]platforms.FindingState{"credentials": "wrong", "notifications": "ok"}, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked searchRequest
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != "/tss/v2/searches" || r.Header.Get("Authorization") == "" {
					t.Errorf("called: %s %s, want a signed search", r.Method, r.URL.Path)
				}
				if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
					t.Errorf("the search: %v", err)
				}
				w.Header().Set("Date", now.Add(tt.off).Format(http.TimeFormat))
				w.Header().Set("v-c-correlation-id", "c-1")
				w.WriteHeader(tt.status)
			}))
			t.Cleanup(server.Close)
			if tt.status == 0 {
				server.Close()
			}
			p, err := New(platforms.Settings{MerchantID: "acme", Sandbox: true, Now: func() time.Time { return now }, Values: map[string]string{
				"base_url": server.URL, "merchant_id": "mid", "key_id": "08c94330-f618-42a3-b09d-e1e43be5efda",
				"shared_secret": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=", "country": "ZA", "webhook_keys": tt.keys,
			}}, server.Client(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			found, text := map[string]platforms.FindingState{}, ""
			for _, f := range p.(platforms.Checker).Check(t.Context()) {
				found[f.Check] = f.State
				text += f.Detail + " " + f.Mend + "\n"
				if f.State != platforms.FindingOK && f.Mend == "" {
					t.Errorf("%s does not say how to mend it", f.Check)
				}
			}
			for check, want := range tt.want {
				if found[check] != want {
					t.Errorf("%s: %q, want %q\n%s", check, found[check], want, text)
				}
			}
			if !strings.Contains(text, tt.told) {
				t.Errorf("nothing says %q:\n%s", tt.told, text)
			}
			if tt.status != 0 && asked.Limit != 1 {
				t.Errorf("%d transactions were asked for, want 1", asked.Limit)
			}
		})
	}
}
