package twilio_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"paythread/gateway/providers"
	"paythread/gateway/providers/twilio"
)

// task is one thing that testdata/webhooks.js does with Twilio's library.
type task struct {
	Do        string         `json:"do"`
	Token     string         `json:"token,omitempty"`
	URL       string         `json:"url,omitempty"`
	Params    map[string]any `json:"params,omitempty"`
	Body      string         `json:"body,omitempty"`
	Signature string         `json:"signature,omitempty"`
}

// library lets Twilio's official library for Node.js do the tasks. A missing
// one fails the test: nothing else here was not written by us.
func library(t *testing.T, tasks []task) []any {
	t.Helper()
	const install = "install what the tests need with scripts/install-test-tools"
	modules, err := filepath.Abs(filepath.Join("..", "..", "..", "scripts", "testclients", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "twilio", "package.json")); errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Twilio's library for Node.js is missing: %s", install)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node.js is missing: %s", install)
	}
	input, err := json.Marshal(tasks)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "webhooks.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stdin = bytes.NewReader(input)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("webhooks.js: %v\n%s", err, complaint.Bytes())
	}
	var results []any
	if err := json.Unmarshal(output, &results); err != nil || len(results) != len(tasks) {
		t.Fatalf("webhooks.js: %d results for %d tasks: %v", len(results), len(tasks), err)
	}
	return results
}

// libraryCase is a webhook as Twilio sends it: a form by POST, a GET whose
// parameters stand in the address, or a JSON body.
type libraryCase struct {
	name string
	url  string
	form url.Values // by POST
	body string     // JSON, with its hash in the address
}

func libraryCases() []libraryCase {
	text := func(change url.Values) url.Values {
		form := maps.Clone(hello)
		maps.Copy(form, change)
		return form
	}
	status := url.Values{"MessageSid": {"SM3"}, "MessageStatus": {"delivered"}, "ErrorCode": {""}, "To": {"+16505551234"}, "AccountSid": {accountSID}}
	return []libraryCase{
		{name: "text", url: webhookURL, form: text(nil)},
		{name: "WhatsApp", url: webhookURL, form: text(url.Values{"From": {"whatsapp:+16505551234"}, "ProfileName": {"Zoë 👍"}, "WaId": {"16505551234"}, "ChannelMetadata": {`{"type":"whatsapp"}`}})},
		{name: "hostile text", url: webhookURL, form: text(url.Values{"Body": {"a=b&c+d %41 \"'<>\\\n\r\n\x00\ufeff\u2028end"}})},
		{name: "new parameters", url: webhookURL, form: text(url.Values{"Zz": {"1"}, "aA": {"2"}, "_x": {""}, "A": {"3"}, "a": {"4"}})},
		{name: "everything empty", url: webhookURL, form: url.Values{"MessageSid": {"SM1"}, "Body": {""}, "FromCity": {""}, "ToZip": {""}}},
		{name: "status", url: webhookURL + "?m=p03_msg.1", form: status},
		{name: "with a port", url: strings.Replace(webhookURL, ".test/", ".test:443/", 1), form: status},
		{name: "user and password", url: strings.Replace(webhookURL, "https://", "https://user:pass@", 1), form: status},
		{name: "repeated name", url: webhookURL, form: text(url.Values{"MediaUrl": {"b", "a", "b"}})},
		{name: "GET", url: webhookURL + "?" + text(nil).Encode()},
		{name: "GET with an apostrophe", url: webhookURL + "?Body=it's&MessageSid=SM1"},
		{name: "JSON", url: webhookURL, body: `{"MessageSid":"SM4","MessageStatus":"read","To":"+16505551234","Name":"Zoë"}`},
	}
}

// webhook is the case as it comes in.
func (c libraryCase) webhook(t *testing.T) providers.Webhook {
	t.Helper()
	w := providers.Webhook{Method: http.MethodPost, URL: c.url, Header: http.Header{}}
	switch {
	case c.form != nil:
		w.Body = []byte(c.form.Encode())
		w.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	case c.body != "":
		w.Body = []byte(c.body)
		w.Header.Set("Content-Type", "application/json")
	default:
		w.Method = http.MethodGet
	}
	u, err := url.Parse(c.url)
	if err != nil {
		t.Fatal(err)
	}
	w.Query = u.Query()
	return w
}

// params are the form as a JavaScript program would have parsed it.
func (c libraryCase) params() map[string]any {
	params := map[string]any{}
	for name, values := range c.form {
		params[name] = values
		if len(values) == 1 {
			params[name] = values[0]
		}
	}
	return params
}

// TestOfficialLibrary lets Twilio's own library sign webhooks, which must be
// trusted, and holds what the tests of this package sign to its judgement.
func TestOfficialLibrary(t *testing.T) {
	t.Parallel()
	const current, previous = "current-auth-token", "previous-auth-token"
	p := newProvider(t, with(map[string]string{"auth_token": current, "auth_token_previous": previous}))
	cases := libraryCases()

	hashes := []task{}
	for i := range cases {
		if cases[i].body != "" {
			hashes = append(hashes, task{Do: "hash", Body: cases[i].body})
		}
	}
	hash := library(t, hashes)
	for i := range cases {
		if cases[i].body != "" {
			cases[i].url += "?bodySHA256=" + hash[0].(string)
			hash = hash[1:]
		}
	}

	var signing []task
	for _, c := range cases {
		for _, token := range []string{current, previous, "another tenant's token"} {
			signing = append(signing, task{Do: "sign", Token: token, URL: c.url, Params: c.params()})
		}
	}
	signatures := library(t, signing)
	for i, c := range cases {
		w := c.webhook(t)
		for k, want := range []error{nil, nil, providers.ErrSignature} {
			w.Header.Set("X-Twilio-Signature", signatures[3*i+k].(string))
			if err := p.Verify(w); err != want { //nolint:errorlint // exactly this
				t.Errorf("%s, signed by the library with key %d: got %v, want %v", c.name, k, err, want)
			}
			// Twilio is inconsistent about the port, and never signs the end from "#".
			other := w
			if other.URL = strings.Replace(w.URL, ".test:443/", ".test/", 1); other.URL == w.URL {
				other.URL = strings.Replace(w.URL, ".test/", ".test:443/", 1)
			}
			other.URL += twilio.Overrides
			if err := p.Verify(other); err != want { //nolint:errorlint // exactly this
				t.Errorf("%s, configured with another port and overrides, key %d: got %v, want %v", c.name, k, err, want)
			}
		}
	}

	h := harness(t)
	var judging []task
	var wants []bool
	judge := func(c libraryCase, signature string, want bool) {
		j := task{Do: "judge", Token: current, URL: c.url, Params: c.params(), Signature: signature}
		if c.body != "" {
			j.Do, j.Params, j.Body = "judge body", nil, c.body
		}
		judging, wants = append(judging, j), append(wants, want)
	}
	for _, c := range cases {
		if c.name == "repeated name" {
			continue // the library sorts the values, Twilio's other libraries do not
		}
		w := c.webhook(t)
		if c.body != "" {
			w.Header.Set("X-Twilio-Signature", sign(current, w.URL))
		} else {
			h.Sign(&w, current)
		}
		judge(c, w.Header.Get("X-Twilio-Signature"), true)
		judge(c, sign("another tenant's token", w.URL), false)
		forged := c
		forged.url += "&x=1"
		if forged.form != nil {
			forged.form = maps.Clone(c.form)
			forged.form.Set("Body", "another text")
		}
		judge(forged, w.Header.Get("X-Twilio-Signature"), false)
	}
	for i, got := range library(t, judging) {
		if got != wants[i] {
			t.Errorf("the library says %v of our signature over %s, want %t", got, judging[i].URL, wants[i])
		}
	}
}
