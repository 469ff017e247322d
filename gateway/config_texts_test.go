package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"paythread/conversations"
)

func TestConfigTexts(t *testing.T) {
	t.Parallel()
	c := base(t)
	m, _ := c.Merchant("acme")
	got := m.Domain().Text(conversations.SMS, conversations.PurposePayment, conversations.Parameters{
		Merchant: "Acme", Amount: "ZAR 5.00", Order: "1", Link: "https://pay.acme.example/p/x", Locale: "en-ZA",
	})
	if want := "Acme: please pay ZAR 5.00 for order 1: https://pay.acme.example/p/x Reply STOP to opt out"; got != want {
		t.Errorf("the example's own text is %q, want %q", got, want)
	}
	if len(c.Hints) != 0 {
		t.Errorf("the example has hints: %v", c.Hints)
	}
	env, err := parseConfig("config.yaml", printExample(), []string{"PAYTHREAD_MERCHANTS_ACME_TEXTS_EN_RECEIPT={merchant}: {link}"})
	if err != nil || env.Merchants[0].Texts[0].Receipt != "{merchant}: {link}" {
		t.Errorf("a text from the environment: %v", err)
	}
}

// TestConfigHints: what a text costs, and a language that nobody speaks, is
// right and told to whoever checks.
func TestConfigHints(t *testing.T) {
	t.Parallel()
	const sample = `"{merchant}: please pay {amount} for order {order}: {link} Reply STOP to opt out"`
	long := strings.Repeat("very ", 22)
	tests := []struct {
		name    string
		changes []string
		want    string
	}{
		{"one part", []string{sample, `"{merchant} – “pay”: {link}"`}, ""},
		{"too long", []string{sample, `"{merchant} ` + long + `{link}"`}, "merchants[0].texts[0].payment: takes 2 parts of an SMS with usual values and costs as many; one holds 160 characters and this has 167"},
		{"not GSM", []string{sample, `"{merchant}: a long façade “ł” {link}"`}, "merchants[0].texts[0].payment: takes 2 parts of an SMS with usual values and costs as many; because of ç ł only 70 characters fit into one, else 160"},
		{"the merchant's name", []string{"Acme Outfitters", "Ação", sample, `"{merchant}: please pay {amount} for order {order}: {link} Bye"`},
			"merchants[0].texts[0].payment: takes 2 parts of an SMS with usual values and costs as many; because of ç ã only 70 characters fit into one, else 160"},
		{"a language without texts", []string{"locale: en\n    #", "locale: sv-SE\n    #"},
			"merchants[0].locale: there are no texts in sv-SE and messages are in English; texts ship in af, de, en, es, fr, it, nl, pl, pt"},
		{"a language of its own", []string{"locale: en\n    #", "locale: sv-SE\n    #", "- locale: en", "- locale: sv"}, ""},
		{"a region", []string{"locale: en\n    #", "locale: de-AT\n    #"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, h := range base(t, tt.changes...).Hints {
				if h.Line == 0 || h.File != "config.yaml" {
					t.Errorf("%+v has no place", h)
				}
				got = append(got, h.Path+": "+h.Message)
			}
			want := []string{}
			if tt.want != "" {
				want = []string{tt.want}
			}
			if !slices.Equal(got, want) {
				t.Errorf("hints %q, want %q", got, want)
			}
		})
	}
}

func TestConfigCheckPrintsHints(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	data := strings.Replace(string(printExample()), "please pay {amount}", "façade {amount}", 1)
	if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ := execute(t, nil, "config", "check", "--config", file)
	if code != exitOK || !strings.Contains(out, "hint: "+file+":") || !strings.Contains(out, "because of ç") || !strings.Contains(out, "The configuration is right") {
		t.Errorf("config check = %d\n%s", code, out)
	}
}
