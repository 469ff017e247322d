package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"

	"paythread/conversations"
)

// TestConfigProblems runs every testdata/config_*.txtar. An archive holds
// config.yaml, the files beside it, the variables in env, and in want either
// the exact problems or, where there are none, nothing.
func TestConfigProblems(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/config_*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			var env []string
			want := -1
			for i, f := range archive.Files {
				switch f.Name {
				case "env":
					env = strings.Split(strings.ReplaceAll(strings.TrimSpace(string(f.Data)), "$DIR", dir), "\n")
				case "want":
					want = i
				default:
					if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if want < 0 {
				t.Fatal("the archive has no file \"want\"")
			}
			_, err = loadConfig(filepath.Join(dir, "config.yaml"), env)
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "") + "\n"
			}
			if *update {
				archive.Files[want].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if w := string(archive.Files[want].Data); got != w {
				t.Errorf("problems:\n%s\nwant:\n%s", got, w)
			}
			if strings.Contains(got, "hunter2") {
				t.Errorf("a problem shows a secret:\n%s", got)
			}
		})
	}
}

// base is a right configuration to change in one place.
func base(t *testing.T, changes ...string) *Config {
	t.Helper()
	data := string(printExample())
	for i := 0; i+1 < len(changes); i += 2 {
		if !strings.Contains(data, changes[i]) {
			t.Fatalf("the example does not hold %q", changes[i])
		}
		data = strings.Replace(data, changes[i], changes[i+1], 1)
	}
	c, err := parseConfig("config.yaml", []byte(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConfigExampleLoads(t *testing.T) {
	t.Parallel()
	c := base(t)
	m, ok := c.Merchant("acme")
	if !ok || m.Name != "Acme Outfitters" || !m.Sandbox || m.TimeToOpen != 24*time.Hour || !m.Capture {
		t.Errorf("merchant acme = %v %+v", ok, m)
	}
	if len(m.Senders) != len(conversations.Channels) {
		t.Errorf("the example has %d senders, want one for each of %d channels", len(m.Senders), len(conversations.Channels))
	}
	for _, r := range providerRegistrations { // those for a channel that is taken stand in comments
		if text := string(printExample()); !strings.Contains(text, "provider: "+r.Name+"\n") {
			t.Errorf("the example has no sender at %s", r.Name)
		}
	}
	s, ok := c.Sender("acme-whatsapp")
	if !ok || s.Merchant != m || s.Channel != conversations.WhatsApp || s.Settings["api_version"] != "v25.0" {
		t.Errorf("sender acme-whatsapp = %v %+v", ok, s)
	}
	if got, want := s.WebhookURL(), "https://pay.acme.example/webhooks/acme-whatsapp"; got != want {
		t.Errorf("WebhookURL() = %q, want %q", got, want)
	}
	if _, ok := c.Merchant("other"); ok {
		t.Error("there is a merchant \"other\"")
	}
	if !reflect.DeepEqual(c.Timings, conversations.DefaultTimings()) {
		t.Errorf("timings = %+v, want the defaults of the domain %+v", c.Timings, conversations.DefaultTimings())
	}
	if c.Retention != conversations.DefaultRetention() {
		t.Errorf("retention = %+v, want the defaults of the domain %+v", c.Retention, conversations.DefaultRetention())
	}
	d := m.Domain()
	if d.Senders[conversations.WhatsApp] != "acme-whatsapp" || d.PublicURL != m.PublicURL || !d.LatePayment.ReverseAfterCancellation || d.LatePayment.ReverseAfterExpiry {
		t.Errorf("Domain() = %+v", d)
	}
}

// TestConfigDefaultsAreTheExample: leaving every default out gives the same
// configuration as writing it.
func TestConfigDefaultsAreTheExample(t *testing.T) {
	t.Parallel()
	long := base(t)
	var short strings.Builder
	var merchant, skip bool
	for line := range strings.Lines(string(printExample())) {
		name := strings.TrimRight(line, "\n")
		if !strings.HasPrefix(name, " ") && strings.HasSuffix(name, ":") {
			merchant = name == "merchants:"
			skip = slices.Contains([]string{"log:", "timings:", "retention:", "agent_sessions:", "events:", "dispatcher:"}, name)
		}
		if !skip || merchant {
			short.WriteString(line)
		}
	}
	c, err := parseConfig("config.yaml", []byte(short.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Log != long.Log || c.Retention != long.Retention || c.Events != long.Events || c.Dispatcher != long.Dispatcher ||
		c.AgentSessions != long.AgentSessions || !reflect.DeepEqual(c.Timings, long.Timings) {
		t.Error("without its sections the example gives something else")
	}
}

func TestConfigCaller(t *testing.T) {
	t.Parallel()
	c := base(t)
	caller, ok := c.Caller("replaceme-with-a-long-random-key")
	if !ok || caller.Merchant.ID != "acme" || caller.Key != "oms" {
		t.Errorf("Caller = %v, %v, want acme's key oms", caller, ok)
	}
	for _, wrong := range []string{"", "replaceme", "replaceme-with-a-long-random-key "} {
		if _, ok := c.Caller(wrong); ok {
			t.Errorf("Caller(%q) found someone", wrong)
		}
	}
}

func TestConfigMerchantsAt(t *testing.T) {
	t.Parallel()
	c := base(t, "https://pay.acme.example", "https://Pay.Acme.example:443/")
	for host, want := range map[string]int{"pay.acme.example": 1, "PAY.acme.example": 1, "acme.example": 0, "": 0} {
		if got := len(c.MerchantsAt(host)); got != want {
			t.Errorf("MerchantsAt(%q) has %d merchants, want %d", host, got, want)
		}
	}
}

// TestConfigShowsNoSecret prints a configuration in every way at hand.
func TestConfigShowsNoSecret(t *testing.T) {
	t.Parallel()
	const hidden = "hunter2hunter2hunter2hunter2"
	data := string(printExample())
	data = strings.ReplaceAll(data, "replaceme-with-a-long-random-key", hidden)
	data = strings.ReplaceAll(data, "replaceme", hidden)
	data = strings.ReplaceAll(data, "redis://127.0.0.1:6379", "redis://user:"+hidden+"@127.0.0.1:6379")
	c, err := parseConfig("config.yaml", []byte(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	options, err := c.Store()
	if err != nil {
		t.Fatal(err)
	}
	if options.Password != hidden {
		t.Fatalf("the password did not reach the store")
	}
	m := c.Merchants[0]
	things := []any{c, *c, c.Redis, &c.Redis, m, *m, m.APIKeys, m.APIKeys[0], *m.APIKeys[0], m.APIKeys[0].Secret, m.Senders, m.Senders[0],
		*m.Senders[0], m.Senders[0].Settings, c.merchants, c.senders, c.callers, m.Platform, m.Platform.Settings}
	var out bytes.Buffer
	for _, thing := range things {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			fmt.Fprintf(&out, verb+"\n", thing)
		}
		for _, log := range []*slog.Logger{slog.New(slog.NewJSONHandler(&out, nil)), slog.New(slog.NewTextHandler(&out, nil))} {
			log.Info("thing", "thing", thing)
		}
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if strings.Contains(line, "hunter2") || strings.Contains(line, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("a secret is printed: %s", line)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was redacted, so nothing was tested")
	}
}

// TestLogLevelThatHidesTheAudit is right, and worth a word.
func TestLogLevelThatHidesTheAudit(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]bool{"debug": false, "info": false, "warn": true, "error": true} {
		hints := base(t, "level: info", "level: "+level).Hints
		if got := slices.ContainsFunc(hints, func(h ConfigProblem) bool { return h.Path == "log.level" && h.Line > 0 }); got != want {
			t.Errorf("%s: hints %v, want one: %v", level, hints, want)
		}
	}
}

// TestLogTimesAreUTC: whatever the machine's time zone is.
func TestLogTimesAreUTC(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 11, 30, 0, 0, time.FixedZone("SAST", 2*3600))
	for _, format := range []string{"json", "text"} {
		var out strings.Builder
		record := slog.NewRecord(at, slog.LevelInfo, "held", 0)
		record.Add("until", at.Add(time.Hour))
		if err := (LogConfig{Format: format}).Logger(&out).Handler().Handle(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		if line := out.String(); !strings.Contains(line, "T09:30:00") || !strings.Contains(line, "T10:30:00") || strings.Contains(line, "+02:00") {
			t.Errorf("%s: %s", format, line)
		}
	}
}

func TestConfigFilesTrimmed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ content, want string }{
		"newline":         {"s3cret-s3cret-s3cret-s3cret\n", "s3cret-s3cret-s3cret-s3cret"},
		"windows newline": {"s3cret-s3cret-s3cret-s3cret\r\n", "s3cret-s3cret-s3cret-s3cret"},
		"none":            {"s3cret-s3cret-s3cret-s3cret", "s3cret-s3cret-s3cret-s3cret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "key"), []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			data := strings.Replace(string(printExample()), "secret: replaceme-with-a-long-random-key", "secret_file: key", 1)
			c, err := parseConfig(filepath.Join(dir, "config.yaml"), []byte(data), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Merchants[0].APIKeys[0].Secret.Reveal(); got != tt.want {
				t.Errorf("the secret is %q, want %q", got, tt.want)
			}
		})
	}
}

func TestConfigEnvironment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secretFile := filepath.Join(dir, "secret")
	if err := os.WriteFile(secretFile, []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig("config.yaml", printExample(), []string{
		"HOME=/root",
		"PAYTHREAD_LISTEN=127.0.0.1:0",
		"PAYTHREAD_REDIS_URL=rediss://u:p%20w@one:1/3",
		"PAYTHREAD_TIMINGS_ASK_AFTER=1s, 2s",
		"PAYTHREAD_LOG_LEVEL=",
		"PAYTHREAD_MERCHANTS_ACME_PUBLIC_URL=http://127.0.0.1:8080",
		"PAYTHREAD_MERCHANTS_ACME_SENDERS_ACME_WHATSAPP_APP_SECRET_FILE=" + secretFile,
		"PAYTHREAD_MERCHANTS_ACME_API_KEYS_OMS_SECRET=another-long-random-api-key",
		"PAYTHREAD_MERCHANTS_ACME_LATE_PAYMENT_AFTER_EXPIRY=reverse",
		"PAYTHREAD_PORT=tcp://10.0.0.1:8080", "PAYTHREAD_SERVICE_HOST=10.0.0.1", "PAYTHREAD_SERVICE_PORT_HTTP=8080",
		"PAYTHREAD_PORT_8080_TCP_ADDR=10.0.0.1", "PAYTHREAD_REDIS_SERVICE_PORT=6379", "PAYTHREAD_REDIS_PORT_6379_TCP=tcp://10.0.0.2:6379",
	})
	if err != nil {
		t.Fatal(err)
	}
	m := c.Merchants[0]
	for _, x := range []struct{ name, got, want string }{
		{"listen", c.Listen, "127.0.0.1:0"},
		{"redis", fmt.Sprintln(c.Redis.Mode, c.Redis.Addresses, c.Redis.Username, c.Redis.Password.Reveal(), c.Redis.Database, c.Redis.TLS.Enabled), "single [one:1] u p w 3 true"},
		{"ask_after", fmt.Sprint(c.Timings.AskAfter), "[1s 2s]"},
		{"log level", c.Log.Level.String(), "INFO"},
		{"public_url", m.PublicURL, "http://127.0.0.1:8080"},
		{"app_secret", m.Senders[0].Settings["app_secret"], "from-a-file"},
		{"api key", m.APIKeys[0].Secret.Reveal(), "another-long-random-api-key"},
		{"late_payment", fmt.Sprint(m.LatePayment.ReverseAfterExpiry), "true"},
	} {
		if strings.Join(strings.Fields(x.got), " ") != x.want {
			t.Errorf("%s = %q, want %q", x.name, x.got, x.want)
		}
	}
}

// TestConfigKeysAreNotServiceLinks: what Kubernetes sets for a Service must
// never be the name of a key, because it is ignored.
func TestConfigKeysAreNotServiceLinks(t *testing.T) {
	t.Parallel()
	var walk func(names string, s section)
	walk = func(names string, s section) {
		fields := s.fields
		for _, v := range s.variants {
			fields = append(fields, v.fields...)
		}
		for _, f := range fields {
			name := names + "_" + variableOf(f.key)
			if serviceLink.MatchString(name) {
				t.Errorf("%s cannot be set by %s, which Kubernetes may set for a Service", f.key, name)
			}
			switch f.kind {
			case kindSection:
				walk(name, f.section)
			case kindItems:
				walk(name+"_X", f.add())
			}
		}
	}
	walk(variablePrefix, new(Config).section())
}

func TestConfigRedisModes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ url, want string }{
		"single":         {"redis://h:1", "single [h:1] 0 false"},
		"default port":   {"redis://h", "single [h:6379] 0 false"},
		"ipv6":           {"redis://[::1]:7", "single [[::1]:7] 0 false"},
		"ipv6, no port":  {"redis://[::1]", "single [[::1]:6379] 0 false"},
		"cluster":        {"redis://a:1?addr=b:2&addr=c:3", "cluster [a:1 b:2 c:3] 0 false"},
		"sentinel":       {"redis://a:1/2?addr=b:2&master_name=m", "sentinel [a:1 b:2] 2 false"},
		"sentinel alone": {"redis://a:1?master_name=m", "sentinel [a:1] 0 false"},
		"tls":            {"rediss://a:1", "single [a:1] 0 true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := parseRedisConfig(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%s %v %d %t", c.Mode, c.Addresses, c.Database, c.TLS.Enabled); got != tt.want {
				t.Errorf("parseRedisConfig(%q) = %s, want %s", tt.url, got, tt.want)
			}
		})
	}
	for _, wrong := range []string{"", "h:1", "http://h", "redis://", "redis://:6379", "redis://h:x", "redis://h/x", "redis://h?a=b", "redis://h?addr=b:x", "redis://h#x", "redis://u:hunter2@h:1:2"} {
		_, err := parseRedisConfig(wrong)
		if err == nil {
			t.Errorf("parseRedisConfig(%q) is taken", wrong)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestConfigDurations(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"0s": 0, "30s": 30 * second, "1.5h": 90 * minute, "8d": 8 * day, "1d12h": 36 * hour, "0d1s": second, "36500d": 36500 * day,
	} {
		if got, err := parseDuration(in); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "8", "d", "-1s", "-1d", "1d-1s", "1h1d", "8 d", "1.5d", "36501d", "99999999999d"} {
		if got, err := parseDuration(in); err == nil {
			t.Errorf("parseDuration(%q) = %v, want an error", in, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 90 * second: "1m30s", hour: "1h", day: "24h", 48 * hour: "48h", 8 * day: "8d", 36 * hour: "36h", 5 * minute: "5m"} {
		got := formatDuration(d)
		if got != want {
			t.Errorf("formatDuration(%v) = %q, want %q", d, got, want)
		}
		if back, err := parseDuration(got); err != nil || back != d {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", got, back, err, d)
		}
	}
}

func TestConfigSuggestions(t *testing.T) {
	t.Parallel()
	known := []string{"listen", "admin_listen", "merchants", "redis"}
	for word, want := range map[string]string{
		"lisen": "listen", "merchant": "merchants", "rdeis": "redis", "admin-listen": "admin_listen", "colour": "", "": "",
	} {
		got := suggestion(word, known)
		if want != "" {
			want = ", did you mean " + want + "?"
		}
		if got != want {
			t.Errorf("suggestion(%q) = %q, want %q", word, got, want)
		}
	}
}

// TestGeneratedConfiguration keeps docs/configuration.md what the code prints.
func TestGeneratedConfiguration(t *testing.T) {
	t.Parallel()
	golden(t, filepath.Join("..", "docs", "configuration.md"), printReference())
}

// TestConfigFieldsExplained: every key has a sentence, and every default loads.
func TestConfigFieldsExplained(t *testing.T) {
	t.Parallel()
	var walk func(path string, s section)
	walk = func(path string, s section) {
		fields := s.fields
		for _, v := range s.variants {
			fields = append(fields, v.fields...)
		}
		seen := map[string]bool{}
		for _, f := range fields {
			p := join(path, f.key)
			if !strings.HasSuffix(f.doc, ".") {
				t.Errorf("%s: the explanation %q is no sentence", p, f.doc)
			}
			if f.secret && f.def != "" {
				t.Errorf("%s: a secret has a default", p)
			}
			for _, d := range elementsOf(f.def, true) {
				if f.set != nil && f.list {
					if err := f.set(d); err != nil {
						t.Errorf("%s: default %q: %v", p, d, err)
					}
				}
			}
			if seen[f.key] && s.by == "" {
				t.Errorf("%s stands twice", p)
			}
			seen[f.key] = true
			switch f.kind {
			case kindSection:
				walk(p, f.section)
			case kindItems:
				walk(p, f.add())
			}
		}
	}
	walk("", new(Config).section())
}

// TestConfigSchema checks the schema's form, and that by its own rules the
// example is right and typical mistakes are not.
func TestConfigSchema(t *testing.T) {
	t.Parallel()
	var schema map[string]any
	if err := json.Unmarshal(printSchema(), &schema); err != nil {
		t.Fatal(err)
	}
	if schema["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("$schema = %v", schema["$schema"])
	}
	valid := func(change func(map[string]any)) []string {
		doc := yamlToJSON(t, printExample())
		change(doc)
		return schemaProblems(schema, doc, "")
	}
	merchant := func(doc map[string]any) map[string]any { return doc["merchants"].([]any)[0].(map[string]any) }
	sender := func(doc map[string]any) map[string]any { return merchant(doc)["senders"].([]any)[0].(map[string]any) }

	loads := func(change func(map[string]any)) error {
		doc := yamlToJSON(t, printExample())
		change(doc)
		data, err := yaml.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parseConfig("config.yaml", data, nil)
		return err
	}

	if got := valid(func(map[string]any) {}); len(got) > 0 {
		t.Errorf("the example is wrong by the schema: %v", got)
	}
	for name, change := range map[string]func(map[string]any){
		"unknown key":            func(d map[string]any) { d["lisen"] = ":1" },
		"unknown key below":      func(d map[string]any) { d["log"].(map[string]any)["x"] = "y" },
		"no merchants":           func(d map[string]any) { d["merchants"] = []any{} },
		"merchants missing":      func(d map[string]any) { delete(d, "merchants") },
		"no id":                  func(d map[string]any) { delete(merchant(d), "id") },
		"a word that is none":    func(d map[string]any) { merchant(d)["environment"] = "live" },
		"secret twice":           func(d map[string]any) { sender(d)["app_secret_file"] = "x" },
		"secret missing":         func(d map[string]any) { delete(sender(d), "app_secret") },
		"another's setting":      func(d map[string]any) { sender(d)["account_sid"] = "x" },
		"too many partitions":    func(d map[string]any) { d["redis"].(map[string]any)["partitions"] = 33.0 },
		"partitions as a word":   func(d map[string]any) { d["redis"].(map[string]any)["partitions"] = "many" },
		"duration without unit":  func(d map[string]any) { d["timings"].(map[string]any)["send_within"] = "10" },
		"list that is no list":   func(d map[string]any) { d["timings"].(map[string]any)["ask_after"] = "5m" },
		"boolean that is a text": func(d map[string]any) { merchant(d)["capture"] = "maybe" },
		"required and empty":     func(d map[string]any) { merchant(d)["name"] = "" },
		"secret that is empty":   func(d map[string]any) { sender(d)["app_secret"] = "" },
		"a signed duration":      func(d map[string]any) { d["drain"] = "+5s" },
		"another number of time": func(d map[string]any) { d["drain"] = 5.0 },
		"no list of merchants":   func(d map[string]any) { d["merchants"] = nil },
		"a list's empty element": func(d map[string]any) { merchant(d)["currencies"] = []any{"ZAR", nil} },
	} {
		if got := valid(change); len(got) == 0 {
			t.Errorf("%s: the schema takes it", name)
		}
		if loads(change) == nil {
			t.Errorf("%s: it loads", name)
		}
	}
	for name, change := range map[string]func(map[string]any){
		"numbers in quotes":      func(d map[string]any) { d["redis"].(map[string]any)["partitions"] = "16" },
		"booleans in quotes":     func(d map[string]any) { merchant(d)["capture"] = "true" },
		"0 without a unit":       func(d map[string]any) { d["drain"] = 0.0 },
		"a part of an hour":      func(d map[string]any) { d["agent_sessions"].(map[string]any)["ttl"] = "1.5h" },
		"a day and a bit":        func(d map[string]any) { d["retention"].(map[string]any)["money"] = "400d12h" },
		"keys without a value":   func(d map[string]any) { d["drain"], d["log"], merchant(d)["capture"] = nil, nil, nil },
		"an empty choice":        func(d map[string]any) { d["log"].(map[string]any)["level"] = "" },
		"a list without a value": func(d map[string]any) { d["trusted_proxies"], merchant(d)["texts"] = nil, nil },
		"a secret of digits":     func(d map[string]any) { sender(d)["access_token"] = 1234567.0 },
		"a number as a name":     func(d map[string]any) { merchant(d)["name"] = 24.0 },
		"an empty secret beside its file": func(d map[string]any) {
			m := merchant(d)["api_keys"].([]any)[0].(map[string]any)
			m["secret_file"] = ""
		},
	} {
		if got := valid(change); len(got) > 0 {
			t.Errorf("%s: the schema refuses it: %v", name, got)
		}
		if err := loads(change); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := valid(func(d map[string]any) {
		delete(sender(d), "app_secret")
		sender(d)["app_secret_file"] = "x"
	}); len(got) > 0 {
		t.Errorf("a secret from a file is refused by the schema: %v", got)
	}
}

func TestProblemsAreErrors(t *testing.T) {
	t.Parallel()
	_, err := parseConfig("f.yaml", []byte("listen: nowhere\n"), nil)
	var problems ConfigProblems
	if !errors.As(err, &problems) || len(problems) < 2 {
		t.Fatalf("error = %v, want several ConfigProblems", err)
	}
	for _, p := range problems {
		if p.Path == "listen" && (p.Line != 1 || p.File != "f.yaml") {
			t.Errorf("listen is reported at %s:%d, want f.yaml:1", p.File, p.Line)
		}
	}
}

// FuzzConfig: whatever the file holds, reading it ends, and with problems or a
// configuration whose parts are all there.
func FuzzConfig(f *testing.F) {
	f.Add(printExample())
	f.Add([]byte("a: &a [*a, *a]\nmerchants: *a\n"))
	files, err := filepath.Glob("testdata/config_*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, x := range archive.Files {
			if x.Name == "config.yaml" {
				f.Add(x.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte(fileSuffix)) {
			t.Skip("reads files that are not the test's")
		}
		c, err := parseConfig("config.yaml", data, nil)
		if err != nil {
			var problems ConfigProblems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("error = %v, want ConfigProblems", err)
			}
			for _, p := range problems {
				if p.Message == "" || p.Line < 0 || p.Line > bytes.Count(data, []byte("\n"))+2 || strings.Contains(p.String(), "\n") {
					t.Errorf("problem %+v has no message, more than one line, or a place that is not in the file", p)
				}
			}
			return
		}
		if len(c.Merchants) == 0 || c.Redis.Mode == RedisAuto || len(c.Redis.Addresses) == 0 {
			t.Errorf("an incomplete configuration was taken: %+v", c)
		}
		for _, m := range c.Merchants {
			if found, ok := c.Merchant(m.ID); !ok || found != m || len(m.Senders) == 0 || len(m.APIKeys) == 0 {
				t.Errorf("merchant %s is incomplete", m.ID)
			}
		}
	})
}
