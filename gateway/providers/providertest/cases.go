package providertest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// ParseCase is a file testdata/parse_<what>.txtar. Its parts are
//
//	webhook.json  method, query, content_type, received_at; each may be left out
//	body          the body, without the line feed at the end of the part
//	want.json     what Parse returns, without the fields that are empty
type ParseCase struct {
	Name    string
	Webhook providers.Webhook

	file *caseFile
}

// ParseCases reads every parse case in testdata of the package under test.
func ParseCases(t testing.TB) []ParseCase {
	t.Helper()
	return new(Harness).parseCases(t)
}

func (h *Harness) parseCases(t testing.TB) []ParseCase {
	t.Helper()
	var cases []ParseCase
	for _, f := range h.caseFiles(t, "parse_*.txtar") {
		head := struct {
			Method      string    `json:"method"`
			Query       string    `json:"query"`
			ContentType string    `json:"content_type"`
			ReceivedAt  time.Time `json:"received_at"`
		}{Method: http.MethodPost, ContentType: "application/json", ReceivedAt: ReceivedAt}
		if part, ok := f.part("webhook.json"); ok {
			decode(t, f.path, part, &head)
		}
		body, _ := f.part("body")
		query, err := url.ParseQuery(head.Query)
		if err != nil {
			t.Fatalf("%s: %v", f.path, err)
		}
		cases = append(cases, ParseCase{Name: f.name(), file: f, Webhook: providers.Webhook{
			Method: head.Method, URL: "https://pay.example.test/webhooks/sender_1?" + head.Query, Query: query,
			Header: http.Header{"Content-Type": {head.ContentType}}, Body: body, ReceivedAt: head.ReceivedAt,
		}})
	}
	return cases
}

// check compares with want.json, or rewrites it.
func (c ParseCase) check(t *testing.T, got []conversations.Inbound, err error) {
	t.Helper()
	result := map[string]any{"inbound": compact(got)}
	if err != nil {
		result = map[string]any{"error": err.Error()}
	}
	c.file.compare(t, "want.json", indented(t, result))
}

// SendCase is a file testdata/send_<what>.txtar. Its parts are
//
//	outbound.json  what differs from the harness's message
//	answer.json    status and header of the provider's answer
//	answer.body    its body
//	want.request   what the provider must be asked; empty when nothing may be sent
//	want.json      what Send returns
type SendCase struct {
	Name     string
	Outbound conversations.Outbound
	Status   int
	Header   map[string]string
	Body     []byte

	file *caseFile
}

// sendCases reads every send case of the harness.
func (h *Harness) sendCases(t testing.TB) []SendCase {
	t.Helper()
	var cases []SendCase
	for _, f := range h.caseFiles(t, "send_*.txtar") {
		c := SendCase{Name: f.name(), Outbound: h.Outbound, file: f}
		if part, ok := f.part("outbound.json"); ok {
			decode(t, f.path, part, &c.Outbound)
		}
		var head struct {
			Status int               `json:"status"`
			Header map[string]string `json:"header"`
		}
		if part, ok := f.part("answer.json"); ok {
			decode(t, f.path, part, &head)
		}
		c.Status, c.Header = head.Status, head.Header
		c.Body, _ = f.part("answer.body")
		cases = append(cases, c)
	}
	return cases
}

// caseFile is one txtar file of testdata.
type caseFile struct {
	path    string
	archive *txtar.Archive
}

func (h *Harness) caseFiles(t testing.TB, pattern string) []*caseFile {
	t.Helper()
	pattern = filepath.Join(cmp.Or(h.Testdata, "testdata"), pattern)
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	var files []*caseFile
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, &caseFile{path: path, archive: a})
	}
	return files
}

func (f *caseFile) name() string {
	return strings.TrimSuffix(filepath.Base(f.path), ".txtar")
}

// part returns a part without the line feed that the format puts at its end.
func (f *caseFile) part(name string) ([]byte, bool) {
	for _, p := range f.archive.Files {
		if p.Name == name {
			return bytes.TrimSuffix(p.Data, []byte("\n")), true
		}
	}
	return nil, false
}

// compare holds a part against what came out, or rewrites it with -update.
func (f *caseFile) compare(t *testing.T, name string, got []byte) {
	t.Helper()
	want, _ := f.part(name)
	if bytes.Equal(want, got) {
		return
	}
	if !*update {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		return
	}
	data := append(slices.Clone(got), '\n')
	i := slices.IndexFunc(f.archive.Files, func(p txtar.File) bool { return p.Name == name })
	if i < 0 {
		f.archive.Files = append(f.archive.Files, txtar.File{Name: name, Data: data})
	} else {
		f.archive.Files[i].Data = data
	}
	if err := os.WriteFile(f.path, txtar.Format(f.archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

func decode(t testing.TB, path string, data []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func indented(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// compact returns v as maps and lists without members that are empty.
func compact(v any) any {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain data can be marshalled
	}
	var plain any
	if err := json.Unmarshal(data, &plain); err != nil {
		panic(err) // so can what was just marshalled be read
	}
	return without(plain)
}

func without(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			switch member = without(member); member {
			case nil, "", false, 0.0, "0001-01-01T00:00:00Z":
				delete(v, name)
			default:
				v[name] = member
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = without(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

// StringsAt returns every string at a path of member names in a JSON body,
// going through all elements of the lists on the way. A body that is no JSON
// has none. Tests use it to hold a table against testdata.
func StringsAt(t testing.TB, body []byte, path ...string) []string {
	t.Helper()
	var v any
	if json.Unmarshal(body, &v) != nil {
		return nil
	}
	return stringsAt(v, path)
}

func stringsAt(v any, path []string) []string {
	switch v := v.(type) {
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, stringsAt(e, path)...)
		}
		return all
	case map[string]any:
		if len(path) > 0 {
			return stringsAt(v[path[0]], path[1:])
		}
	case string:
		if len(path) == 0 {
			return []string{v}
		}
	}
	return nil
}
