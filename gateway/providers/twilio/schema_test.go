package twilio_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/twilio"
)

// schema is the part of JSON Schema that testdata/create_message.schema.json
// needs, for the values of a form. An unknown word in it is refused, so that a
// slip does not check less than it seems to.
type schema struct {
	Comment    string              `json:"$comment"`
	Type       string              `json:"type"`
	Additional *bool               `json:"additionalProperties"`
	Properties map[string]*schema  `json:"properties"`
	Required   []string            `json:"required"`
	Dependent  map[string][]string `json:"dependentRequired"`
	AllOf      []*schema           `json:"allOf"`
	AnyOf      []*schema           `json:"anyOf"`
	Items      *schema             `json:"items"`
	MaxItems   int                 `json:"maxItems"`
	Pattern    string              `json:"pattern"`
	MinLength  int                 `json:"minLength"`
	MaxLength  int                 `json:"maxLength"`
	Minimum    *int                `json:"minimum"`
	Maximum    *int                `json:"maximum"`
	Enum       []string            `json:"enum"`
	Format     string              `json:"format"`
}

// createMessage reads the schema once: TestWhatsApp stands in another folder.
var createMessage = sync.OnceValues(func() (*schema, error) {
	// Tests of this package stand in its folder or below it.
	path := filepath.Join("testdata", "create_message.schema.json")
	for _, err := os.Stat(path); err != nil && len(path) < 100; _, err = os.Stat(path) {
		path = filepath.Join("..", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was read only
	d := json.NewDecoder(file)
	d.DisallowUnknownFields()
	s := &schema{}
	return s, d.Decode(s)
})

// object checks a form.
func (s *schema) object(form url.Values) error {
	for _, name := range s.Required {
		if !form.Has(name) {
			return fmt.Errorf("%s is missing", name)
		}
	}
	for _, all := range s.AllOf {
		if err := all.object(form); err != nil {
			return err
		}
	}
	if len(s.AnyOf) > 0 && !slices.ContainsFunc(s.AnyOf, func(any *schema) bool { return any.object(form) == nil }) {
		return fmt.Errorf("it has none of what one is needed of")
	}
	for name, others := range s.Dependent {
		for _, other := range others {
			if form.Has(name) && !form.Has(other) {
				return fmt.Errorf("%s comes without %s", name, other)
			}
		}
	}
	if s.Additional == nil || *s.Additional {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		member, known := s.Properties[name]
		if !known {
			return fmt.Errorf("%s is not a parameter", name)
		}
		if err := member.values(form[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// values checks one parameter, which comes more than once only as a list.
func (s *schema) values(values []string) error {
	if s.Type == "array" {
		if len(values) > s.MaxItems && s.MaxItems > 0 {
			return fmt.Errorf("%d of them", len(values))
		}
		for _, v := range values {
			if err := s.Items.value(v); err != nil {
				return err
			}
		}
		return nil
	}
	if len(values) != 1 {
		return fmt.Errorf("%d of them", len(values))
	}
	return s.value(values[0])
}

func (s *schema) value(v string) error {
	switch length := utf8.RuneCountInString(v); {
	case !utf8.ValidString(v):
		return fmt.Errorf("not UTF-8")
	case length < s.MinLength, s.MaxLength > 0 && length > s.MaxLength:
		return fmt.Errorf("%d characters", length)
	case s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v):
		return fmt.Errorf("%q does not fit %s", v, s.Pattern)
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, v):
		return fmt.Errorf("%q is none of %v", v, s.Enum)
	}
	switch s.Type {
	case "string":
		return checkFormat(s.Format, v)
	case "boolean":
		if v != "true" && v != "false" {
			return fmt.Errorf("%q is neither true nor false", v)
		}
	case "integer":
		n, err := strconv.Atoi(v)
		if err != nil || s.Minimum != nil && n < *s.Minimum || s.Maximum != nil && n > *s.Maximum {
			return fmt.Errorf("%q is no number in its bounds", v)
		}
	default:
		return fmt.Errorf("the schema has a type %q, which nothing here checks", s.Type)
	}
	return nil
}

// overrides are the words that an address may end in, from Twilio's page on
// webhook connection overrides.
var overrides = map[string]*regexp.Regexp{
	"ct": regexp.MustCompile(`^[0-9]{3,5}$`),
	"rt": regexp.MustCompile(`^[0-9]{3,5}$`),
	"tt": regexp.MustCompile(`^[0-9]{3,5}$`),
	"rc": regexp.MustCompile(`^[0-5]$`),
	"rp": regexp.MustCompile(`^(4xx|5xx|ct|rt|all)(,(4xx|5xx|ct|rt|all))*$`),
}

func checkFormat(format, v string) error {
	switch format {
	case "":
	case "date-time":
		_, err := time.Parse(time.RFC3339, v)
		return err
	case "json-object-of-strings":
		var members map[string]string
		if err := json.Unmarshal([]byte(v), &members); err != nil || members == nil {
			return fmt.Errorf("no JSON object of strings")
		}
	case "uri", "callback":
		u, err := url.Parse(v)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return fmt.Errorf("no web address")
		}
		if format == "uri" {
			return nil
		}
		if strings.Contains(u.Host, "_") {
			return fmt.Errorf("the host name has an underscore (error 21609)")
		}
		for part := range strings.SplitSeq(u.Fragment, "&") {
			name, value, _ := strings.Cut(part, "=")
			if form := overrides[name]; part != "" && (form == nil || !form.MatchString(value)) {
				return fmt.Errorf("%q overrides nothing", part)
			}
		}
	default:
		return fmt.Errorf("the schema has a format %q, which nothing here checks", format)
	}
	return nil
}

// describedTransport lets through what Twilio's description of CreateMessage
// allows, and is an error of the test otherwise.
type describedTransport struct {
	t    testing.TB
	next http.RoundTripper
}

func (d describedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := checkRequest(r, string(body)); err != nil {
		d.t.Errorf("a request that Twilio's API description does not know: %v", err)
	}
	return d.next.RoundTrip(r)
}

var messagesPath = regexp.MustCompile(`^/2010-04-01/Accounts/AC[0-9a-fA-F]{32}/Messages\.json$`)

// checkRequest holds one send to the description.
func checkRequest(r *http.Request, body string) error {
	s, err := createMessage()
	if err != nil {
		return fmt.Errorf("reading the schema: %w", err)
	}
	if r.Method != http.MethodPost || !messagesPath.MatchString(r.URL.Path) || r.URL.RawQuery != "" {
		return fmt.Errorf("%s %s", r.Method, r.URL.Path)
	}
	if kind := r.Header.Get("Content-Type"); kind != "application/x-www-form-urlencoded" {
		return fmt.Errorf("content type %q", kind)
	}
	if user, password, ok := r.BasicAuth(); !ok || !regexp.MustCompile(`^(AC|SK)[0-9a-f]{32}$`).MatchString(user) || password == "" {
		return fmt.Errorf("no Basic credentials of an account or a key")
	}
	form, err := url.ParseQuery(body)
	if err != nil {
		return fmt.Errorf("the body is no form")
	}
	return s.object(form)
}

// described is Twilio's registration for one channel, whose adapters' sends
// are held to the description.
func described(t testing.TB, channel conversations.Channel) providers.Registration {
	r := twilio.Registration
	r.Channels = []conversations.Channel{channel}
	r.New = func(s providers.Settings, c *http.Client, log *slog.Logger) (providers.Provider, error) {
		held := *c
		if held.Transport == nil {
			held.Transport = http.DefaultTransport
		}
		held.Transport = describedTransport{t, held.Transport}
		return twilio.Registration.New(s, &held, log)
	}
	return r
}

// TestSchema plants mistakes, each of which must be found.
func TestSchema(t *testing.T) {
	t.Parallel()
	good := url.Values{
		"To": {"+16505551234"}, "From": {"+15550783881"}, "Body": {"hello"}, "ValidityPeriod": {"3600"},
		"StatusCallback": {"https://pay.example.test/webhooks/sender_1?m=p03_msg.1" + twilio.Overrides},
	}
	content := url.Values{"To": {"whatsapp:US.900001"}, "MessagingServiceSid": {"MG00000000000000000000000000000004"}, "ContentSid": {"HX00000000000000000000000000000001"}, "ContentVariables": {`{"1":"Ana"}`}}
	check := func(form url.Values, change func(*http.Request)) error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.twilio.com/2010-04-01/Accounts/"+accountSID+"/Messages.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(accountSID, "token")
		if change != nil {
			change(r)
		}
		return checkRequest(r, form.Encode())
	}
	for _, form := range []url.Values{good, content} {
		if err := check(form, nil); err != nil {
			t.Errorf("%v: got %v, want it fit", form, err)
		}
	}
	for name, planted := range map[string]url.Values{
		"a name that is none":        {"Text": {"hello"}},
		"another case":               {"body": {"hello"}},
		"no text":                    {"Body": nil},
		"an empty text":              {"Body": {""}},
		"a text too long":            {"Body": {strings.Repeat("é", 1601)}},
		"twice":                      {"Body": {"a", "b"}},
		"nobody to send to":          {"To": nil},
		"a number without +":         {"To": {"16505551234"}},
		"WhatsApp without +":         {"To": {"whatsapp:16505551234"}},
		"no sender":                  {"From": nil},
		"a service that is none":     {"MessagingServiceSid": {"MG4"}},
		"a period too long":          {"ValidityPeriod": {"36001"}},
		"a period in words":          {"ValidityPeriod": {"1h"}},
		"a callback without a host":  {"StatusCallback": {"/webhooks"}},
		"a callback's underscore":    {"StatusCallback": {"https://pay_me.example/x"}},
		"an override that is none":   {"StatusCallback": {"https://pay.example/x#retries=3"}},
		"too many retries":           {"StatusCallback": {"https://pay.example/x#rc=6"}},
		"a template that is none":    {"ContentSid": {"payment"}},
		"variables alone":            {"ContentVariables": {`{"1":"Ana"}`}},
		"variables that are a list":  {"ContentSid": {"HX00000000000000000000000000000001"}, "ContentVariables": {`["Ana"]`}},
		"variables that are numbers": {"ContentSid": {"HX00000000000000000000000000000001"}, "ContentVariables": {`{"1":1}`}},
		"a truth that is none":       {"SmartEncoded": {"yes"}},
		"a word that is none":        {"RiskCheck": {"off"}},
		"too many pictures":          {"MediaUrl": slices.Repeat([]string{"https://a.example/x"}, 11)},
		"a time without its service": {"SendAt": {"2026-11-22T10:00:00Z"}, "ScheduleType": {"fixed"}},
	} {
		form := maps.Clone(good)
		for k, v := range planted {
			if form[k] = v; v == nil {
				delete(form, k)
			}
		}
		if err := check(form, nil); err == nil {
			t.Errorf("%s: found nothing", name)
		}
	}
	for name, change := range map[string]func(*http.Request){
		"another method":  func(r *http.Request) { r.Method = http.MethodPut },
		"another path":    func(r *http.Request) { r.URL.Path = strings.TrimSuffix(r.URL.Path, ".json") },
		"JSON":            func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"no credentials":  func(r *http.Request) { r.Header.Del("Authorization") },
		"a bearer":        func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") },
		"query":           func(r *http.Request) { r.URL.RawQuery = "Body=x" },
		"another account": func(r *http.Request) { r.URL.Path = "/2010-04-01/Accounts/me/Messages.json" },
	} {
		if err := check(good, change); err == nil {
			t.Errorf("%s: found nothing", name)
		}
	}
}
