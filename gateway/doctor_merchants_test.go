package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// toldEndpoints are callback endpoints that a test makes up.
type toldEndpoints []conversations.CallbackEndpoint

func (e toldEndpoints) CallbackEndpoints(context.Context, string) ([]conversations.CallbackEndpoint, error) {
	return e, nil
}

// checkedPlatform quotes a secret, as the answer of a company might.
type checkedPlatform struct {
	platforms.Platform
	quoted string
}

func (p checkedPlatform) Check(context.Context) []platforms.Finding {
	return []platforms.Finding{{Check: "credentials", State: platforms.FindingWrong, Detail: "told " + p.quoted, Mend: "another key"}}
}

func TestDoctorMerchants(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	endpoints := toldEndpoints{
		{ID: "ce_fine", State: conversations.CallbackActive, Source: conversations.CallbackFromAPI},
		{ID: "ce_failing", State: conversations.CallbackActive, Source: conversations.CallbackFromAPI, Failing: &at},
		{ID: "ce_off", State: conversations.CallbackDisabled, Reason: conversations.CallbackFailing, Since: at},
		{ID: "ce_paused", State: conversations.CallbackDisabled, Reason: conversations.CallbackByMerchant, Since: at},
		{ID: "elsewhere", State: conversations.CallbackActive, Source: conversations.CallbackFromConfig, URL: "https://old.example"},
	}
	const secret = "a-secret-that-is-long-enough"
	cfg := base(t)
	cfg.Merchants[0].Platform.Settings["shared_secret"] = secret
	var out strings.Builder
	platform := func(*MerchantConfig) (platforms.Platform, error) { return checkedPlatform{quoted: secret}, nil }
	if examine(t.Context(), &out, nil, merchantExams(cfg, platform, endpoints)) {
		t.Error("what is wrong with a platform does not fail the examination")
	}
	for _, want := range []string{
		"fail  credentials ", "told " + redacted, "warn  callback ce_failing ", "fail  callback ce_off ", "warn  callback ce_paused ", "warn  callback elsewhere ", "2026-11-20",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	for _, not := range []string{secret, "ce_fine", "old.example"} {
		if strings.Contains(out.String(), not) {
			t.Errorf("it says %q", not)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}

	out.Reset()
	broken := func(*MerchantConfig) (platforms.Platform, error) { return nil, errors.New("key_id is missing") }
	if examine(t.Context(), &out, nil, merchantExams(cfg, broken, toldEndpoints{})) || !strings.Contains(out.String(), "key_id is missing") || !strings.Contains(out.String(), "0 endpoints, none in trouble") {
		t.Errorf("a platform that cannot be made:\n%s", out.String())
	}
	out.Reset()
	if !examine(t.Context(), &out, nil, merchantExams(cfg, nil, endpoints)) || !strings.Contains(out.String(), "warn  callback ce_off ") {
		t.Errorf("an endpoint that is switched off holds up a start where nobody is asked:\n%s", out.String())
	}
	out.Reset()
	if !examine(t.Context(), &out, nil, merchantExams(cfg, nil, nil)) || !strings.Contains(out.String(), "not asked") {
		t.Errorf("without calls:\n%s", out.String())
	}
}

func TestDoctorProxies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		listen  string
		proxies []netip.Prefix
		want    checkStatus
	}{
		{":8080", nil, statusWarn},
		{"127.0.0.1:8080", nil, statusWarn},
		{":8080", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, statusOK},
	} {
		f := checkProxies(&Config{Listen: tt.listen, TrustedProxies: tt.proxies})
		if f.status != tt.want || f.status != statusOK && f.mend == "" {
			t.Errorf("%s behind %v: %+v, want %s and how to mend it", tt.listen, tt.proxies, f, tt.want)
		}
	}
}
