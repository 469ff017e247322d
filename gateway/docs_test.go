package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/clickatell"
	"paythread/gateway/providers/meta"
	"paythread/gateway/providers/twilio"
)

// page is one page of documentation, without its fenced blocks.
type page struct {
	file   string // from the module's root
	text   string
	blocks string // what stands in the fenced blocks
}

// pages reads the documentation that is written by hand or printed.
func pages(t *testing.T) []page {
	t.Helper()
	files := []string{"README.md", "CHANGELOG.md", "SECURITY.md"}
	err := filepath.WalkDir(filepath.Join("..", "docs"), func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "node_modules" { // of somebody who tries an example
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(file, ".md") {
			files = append(files, strings.TrimPrefix(filepath.ToSlash(file), "../"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	read := make([]page, 0, len(files))
	for _, file := range files {
		read = append(read, readPage(t, file))
	}
	return read
}

func readPage(t *testing.T, file string) page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	p := page{file: file}
	var text, blocks strings.Builder
	fenced := false
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced:
			blocks.WriteString(line)
		default:
			text.WriteString(line)
		}
	}
	if fenced {
		t.Errorf("%s: a fenced block does not end", file)
	}
	p.text, p.blocks = text.String(), blocks.String()
	return p
}

// link is one link of a page; target is from the module's root.
type link struct{ text, target, anchor string }

var (
	linkForm = regexp.MustCompile(`\[([^\]]*)\]\(([^)\s]+)\)`)
	codeForm = regexp.MustCompile("`([^`\n]+)`")
)

// links returns the links to files of ours.
func (p page) links() []link {
	var found []link
	for _, m := range linkForm.FindAllStringSubmatch(p.text, -1) {
		if strings.Contains(m[2], ":") { // another host
			continue
		}
		target, anchor, _ := strings.Cut(m[2], "#")
		if target == "" {
			target = p.file
		} else {
			target = path.Join(path.Dir(p.file), target)
		}
		found = append(found, link{text: m[1], target: target, anchor: anchor})
	}
	return found
}

// TestDocsLinks: every link to a file of ours leads to one, and one with an
// anchor to a heading.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		for _, l := range p.links() {
			if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(l.target))); err != nil {
				t.Errorf("%s links to %s, which is not there", p.file, l.target)
				continue
			}
			if l.anchor != "" && strings.HasSuffix(l.target, ".md") && !slices.Contains(anchors(readPage(t, l.target)), l.anchor) {
				t.Errorf("%s links to #%s in %s, which has no such heading", p.file, l.anchor, l.target)
			}
		}
	}
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// anchors returns the anchors of a page's headings, as they are made where
// Markdown is shown: lower case, without punctuation, with hyphens.
func anchors(p page) []string {
	var found []string
	for line := range strings.Lines(p.text) {
		heading := strings.TrimLeft(line, "#")
		if heading == line || !strings.HasPrefix(heading, " ") {
			continue
		}
		name := notInAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
		found = append(found, strings.ReplaceAll(name, " ", "-"))
	}
	return found
}

// TestDocsNameWhatExists: a link whose text is code and that leads to a Go file
// names something that the file declares.
func TestDocsNameWhatExists(t *testing.T) {
	t.Parallel()
	declared := map[string][]string{}
	for _, s := range moduleSources(t) {
		declared[s.file] = declarations(s.syntax)
	}
	named := 0
	for _, p := range pages(t) {
		for _, l := range p.links() {
			code := codeForm.FindStringSubmatch(l.text)
			if code == nil || !strings.HasSuffix(l.target, ".go") {
				continue
			}
			if p.file == "docs/payment-walkthrough.md" {
				named++
			}
			if !slices.Contains(declared[l.target], code[1]) {
				t.Errorf("%s names %s in %s, which does not declare it", p.file, code[1], l.target)
			}
		}
	}
	if named < 50 {
		t.Errorf("the walk-through names %d functions; it walks through the code, or this test does not see its links", named)
	}
}

// declarations returns what a file declares: "name", and "Type.name" for
// methods.
func declarations(f *ast.File) []string {
	var found []string
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = receiverName(d.Recv.List[0].Type) + "." + name
			}
			found = append(found, name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					found = append(found, s.Name.Name)
				case *ast.ValueSpec:
					for _, n := range s.Names {
						found = append(found, n.Name)
					}
				}
			}
		}
	}
	return found
}

// receiverName returns the name of a method's type.
func receiverName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiverName(e.X)
	case *ast.IndexExpr:
		return receiverName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

var domainWord = regexp.MustCompile(`^[A-Z][a-z]+([A-Z][a-z]+)*$`)

// TestWalkthroughUsesTheTablesWords: the events, triggers and effects that the
// walk-through names are those of the code.
func TestWalkthroughUsesTheTablesWords(t *testing.T) {
	t.Parallel()
	var words []string
	for _, s := range moduleSources(t) {
		if s.pkg() == "conversations" && !s.isTest() {
			words = append(words, declarations(s.syntax)...)
		}
	}
	seen := 0
	text := linkForm.ReplaceAllString(readPage(t, "docs/payment-walkthrough.md").text, "") // links name their own files
	for _, m := range codeForm.FindAllStringSubmatch(text, -1) {
		if !domainWord.MatchString(m[1]) {
			continue
		}
		seen++
		if !slices.Contains(words, m[1]) {
			t.Errorf("the walk-through speaks of %s, which package conversations does not declare", m[1])
		}
	}
	if seen < 20 {
		t.Errorf("the walk-through has %d words of the tables: this test does not see them", seen)
	}
}

// TestDocsNameEveryEvent: the table of events for integrators has a row for
// every type that the domain logs and agents have a sentence for, and no other.
func TestDocsNameEveryEvent(t *testing.T) {
	t.Parallel()
	written := map[string]bool{} // texts that stand in the domain's code
	for _, s := range moduleSources(t) {
		if s.pkg() != "conversations" || s.isTest() {
			continue
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok {
				written[strings.Trim(text.Value, `"`)] = true
			}
			return true
		})
	}
	var logged []string
	for key := range eventTexts {
		if kind, _, _ := strings.Cut(key, "."); written[kind] && !slices.Contains(logged, kind) {
			logged = append(logged, kind)
		}
	}
	compare(t, "docs/integrate.md", "event", firstColumn(readPage(t, "docs/integrate.md"), "type"), logged)
}

// curlForm is a call of the examples that sends a body: path and body.
var curlForm = regexp.MustCompile(`curl http://127\.0\.0\.1:8080(/v1/\S+)[^\']*(?:\'[^{\'][^\']*\'[^\']*)*-d \'(\{[^\']*\})\'`)

// TestDocsExamplesWork: the calls that integrators copy are accepted as they
// stand.
func TestDocsExamplesWork(t *testing.T) {
	t.Parallel()
	calls := curlForm.FindAllStringSubmatch(readPage(t, "docs/integrate.md").blocks, -1)
	if len(calls) < 2 {
		t.Fatalf("found %d calls in docs/integrate.md: this test does not see them", len(calls))
	}
	b := newAPIBench(t)
	paid := b.create("1042").text("id")
	b.pay(paid, conversations.OutcomeCaptured)
	for _, c := range calls {
		if path := strings.Replace(c[1], "$ID", paid, 1); path != c[1] {
			b.call(apiCall{method: http.MethodPost, path: path, token: acmeKey, body: c[2]}).want(t, http.StatusOK)
			continue
		}
		b.call(apiCall{method: http.MethodPost, path: c[1], token: acmeKey, body: c[2]}).want(t, http.StatusCreated)
	}
}

// TestDocsNameTheControlAPI: the simulator's calls for programs are those that
// its page lists and those that its package comment lists, and it answers each.
func TestDocsNameTheControlAPI(t *testing.T) {
	t.Parallel()
	documented := firstColumn(readPage(t, "docs/simulator.md"), "call")
	for _, s := range moduleSources(t) {
		if s.file != "simulator/world.go" {
			continue
		}
		for _, m := range callForm.FindAllStringSubmatch(s.syntax.Doc.Text(), -1) {
			if call := m[1] + " " + m[2]; !slices.Contains(documented, call) {
				t.Errorf("docs/simulator.md has no row for %s, which simulator/world.go describes", call)
			}
		}
	}
	socket, address, err := bindWorld("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	outside, err := startWorld(socket, address, worldOptions{GatewayURL: "http://127.0.0.1:9", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := outside.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	for _, call := range documented {
		method, to, _ := strings.Cut(call, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, address+strings.NewReplacer("{e164}", "27821234567", "{id}", "x", "{pnid}", "x").Replace(to), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // its head tells enough
		// What no handler takes is answered in plain text by the mux.
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("docs/simulator.md has %s, which the simulator does not take: %s", call, resp.Status)
		}
	}
	if len(documented) < 15 {
		t.Errorf("docs/simulator.md has %d calls: this test does not see them", len(documented))
	}
}

// callForm is a line of the control API in simulator/world.go.
var callForm = regexp.MustCompile(`(?m)^\t(GET|POST|PUT|DELETE)\s+(/\S+)`)

// TestDocsNameEveryMetric: the table of metrics for operators has every metric
// that the gateway's code names, and no other: one that shows only later, since
// its labels are not made at start, would be missing there.
func TestDocsNameEveryMetric(t *testing.T) {
	t.Parallel()
	var made []string
	for _, s := range moduleSources(t) {
		if s.pkg() != "gateway" || s.isTest() {
			continue
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && metricForm.MatchString(text.Value) {
				made = append(made, strings.Trim(text.Value, `"`))
			}
			return true
		})
	}
	compare(t, "docs/metrics.md", "metric", firstColumn(readPage(t, "docs/metrics.md"), "metric"), made)
}

var metricForm = regexp.MustCompile(`^"paythread_[a-z_]+"$`)

// TestDocsNameMetricsAndSettings: what looks like a metric of ours, or like a key
// of the configuration with its path, is one, on every page.
func TestDocsNameMetricsAndSettings(t *testing.T) {
	t.Parallel()
	metrics := firstColumn(readPage(t, "docs/metrics.md"), "metric")
	keys, parts := map[string]bool{}, map[string]bool{} // parts: what keys begin with
	prefix := ""
	for line := range strings.Lines(readPage(t, "docs/configuration.md").text) {
		if heading, is := strings.CutPrefix(line, "### "); is {
			prefix = ""
			if spans := codeSpans(heading); len(spans) > 0 {
				prefix = spans[0] + "."
			}
		}
		if cells := strings.Split(line, "|"); len(cells) > 5 && len(codeSpans(cells[1])) > 0 {
			key := prefix + codeSpans(cells[1])[0]
			keys[key] = true
			for i, c := range key {
				if c == '.' || c == '[' {
					parts[key[:i]] = true
				}
			}
		}
	}
	metric, key := regexp.MustCompile(`paythread_[a-z_]*[a-z]\b`), regexp.MustCompile(`^[a-z_]+(\[\])?(\.[a-z_]+(\[\])?)+$`)
	seen := 0
	for _, p := range pages(t) {
		for _, name := range metric.FindAllString(p.text+p.blocks, -1) {
			base := name
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, part)
			}
			if !slices.Contains(metrics, base) && !slices.Contains(metrics, name) {
				t.Errorf("%s names the metric %s, which docs/metrics.md does not have", p.file, name)
			}
		}
		for _, word := range codeSpans(linkForm.ReplaceAllString(p.text, "")) { // links name what code declares
			root, _, _ := strings.Cut(word, ".")
			if !key.MatchString(word) || !parts[strings.TrimSuffix(root, "[]")] {
				continue
			}
			seen++
			if !keys[word] && !parts[word] {
				t.Errorf("%s names the setting %s, which docs/configuration.md does not have", p.file, word)
			}
		}
	}
	if seen < 30 {
		t.Errorf("%d settings are named: this test does not see them", seen)
	}
}

// TestDocsNameCommands: every command line in the documentation is one of this
// program's, with flags that it has.
func TestDocsNameCommands(t *testing.T) {
	t.Parallel()
	found := 0
	for _, p := range pages(t) {
		lines := append(strings.Split(p.blocks, "\n"), codeSpans(p.text)...)
		for _, line := range lines {
			args, ok := commandLine(line)
			if !ok {
				continue
			}
			found++
			if len(args) == 1 && isHelp(args[0]) {
				continue
			}
			c, rest, ok := pick(args)
			if !ok {
				t.Errorf("%s: %q: there is no such command", p.file, line)
				continue
			}
			defined := flag.NewFlagSet(c.name, flag.ContinueOnError)
			c.prepare(defined)
			for _, word := range rest {
				if name, is := strings.CutPrefix(word, "--"); is && defined.Lookup(name) == nil {
					t.Errorf("%s: %q: %s has no flag %s", p.file, line, c.name, word)
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("%d command lines in the documentation: this test does not see them", found)
	}
}

func codeSpans(text string) []string {
	var spans []string
	for _, m := range codeForm.FindAllStringSubmatch(text, -1) {
		spans = append(spans, m[1])
	}
	return spans
}

// commandLine returns what follows this program's name in a command line.
func commandLine(line string) ([]string, bool) {
	line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
	for _, begin := range []string{"go run ./gateway ", "paythread ", "./paythread "} {
		if rest, ok := strings.CutPrefix(line, begin); ok {
			return strings.Fields(rest), true
		}
	}
	return nil, false
}

// firstColumn returns the code in the first column of the table whose first
// heading is name. One row may name several.
func firstColumn(p page, name string) []string {
	var found []string
	in := false
	for line := range strings.Lines(p.text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		switch {
		case len(cells) < 3:
			in = false
		case strings.TrimSpace(cells[1]) == name:
			in = true
		case in:
			found = append(found, codeSpans(cells[1])...)
		}
	}
	return found
}

// compare reports what is documented and not there, and the other way round.
func compare(t *testing.T, file, what string, documented, there []string) {
	t.Helper()
	for _, d := range documented {
		if !slices.Contains(there, d) {
			t.Errorf("%s has the %s %s, which does not exist", file, what, d)
		}
	}
	for _, k := range there {
		if !slices.Contains(documented, k) {
			t.Errorf("%s has no row for the %s %s", file, what, k)
		}
	}
}

// guided are the providers that have a page of their own.
var guided = []providers.Registration{meta.Registration, twilio.Registration, clickatell.Registration}

func guideOf(r providers.Registration) string { return "docs/providers/" + r.Name + ".md" }

// TestProvidersHaveGuides: every provider that can be configured has a page
// that the doctor can point to.
func TestProvidersHaveGuides(t *testing.T) {
	t.Parallel()
	for _, r := range providerRegistrations {
		if !slices.ContainsFunc(guided, func(g providers.Registration) bool { return g.Name == r.Name && guideOf(g) == providerGuide(r.Name) }) {
			t.Errorf("provider %s has no page %s", r.Name, providerGuide(r.Name))
		}
	}
}

// printedForm is a part of a page that the code prints.
var printedForm = regexp.MustCompile(`(?s)(<!-- printed: ([a-z]+)(?: ([a-z]+))? -->\n).*?(<!-- end of printed -->)`)

// TestGeneratedProviderGuides keeps the printed parts of docs/providers what
// the code prints.
func TestGeneratedProviderGuides(t *testing.T) {
	t.Parallel()
	want := map[string][]string{"docs/providers/templates.md": {"templates payment", "templates receipt", "templates cancelled", "templates refund"}}
	for _, r := range guided {
		want[guideOf(r)] = []string{"settings " + r.Name, "limits " + r.Name}
	}
	for file, parts := range want {
		name := filepath.Join("..", filepath.FromSlash(file))
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		made := printedForm.ReplaceAllStringFunc(string(text), func(part string) string {
			m := printedForm.FindStringSubmatch(part)
			found = append(found, m[2]+" "+m[3])
			return m[1] + "\n" + printed(t, m[2], m[3]) + "\n" + m[4]
		})
		if !slices.Equal(found, parts) {
			t.Errorf("%s has the printed parts %q, want %q", file, found, parts)
		}
		golden(t, name, []byte(made))
	}
}

// printed returns one part of a provider's page.
func printed(t *testing.T, what, of string) string {
	t.Helper()
	if what == "templates" {
		return printedTemplates(conversations.Purpose(of))
	}
	i := slices.IndexFunc(guided, func(r providers.Registration) bool { return r.Name == of })
	switch {
	case i >= 0 && what == "settings":
		return printedSettings(guided[i])
	case i >= 0 && what == "limits":
		return printedLimits(guided[i])
	}
	t.Fatalf("nobody prints %s %s", what, of)
	return ""
}

func printedSettings(r providers.Registration) string {
	var b bytes.Buffer
	var fields []field
	for _, x := range r.Settings {
		fields = append(fields, Settings{}.field(x.Name, x.Doc, x.Default, x.Secret, x.Required))
	}
	referenceRows(&b, fields)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func printedLimits(r providers.Registration) string {
	var b strings.Builder
	b.WriteString("| channel | messages a second | at once | to one customer | to one customer at once |\n| --- | --- | --- | --- | --- |\n")
	for _, channel := range r.Channels {
		l := r.Limits[channel]
		pair, burst := "not limited", ""
		if l.PairEvery > 0 {
			pair, burst = "one in "+formatDuration(l.PairEvery), strconv.Itoa(l.PairBurst)
		}
		fmt.Fprintf(&b, "| %s | %g | %d | %s | %s |\n", channel, l.PerSecond, l.Burst, pair, burst)
	}
	return b.String()
}

// printedTemplates is a table of what a merchant submits for a purpose, with
// numbers for the values in the order in which adapters send them.
func printedTemplates(purpose conversations.Purpose) string {
	numbered := conversations.Parameters{Merchant: "{{1}}", Amount: "{{2}}", Order: "{{3}}"}
	if purpose == conversations.PurposeCancelled {
		numbered = conversations.Parameters{Merchant: "{{1}}", Order: "{{2}}"}
	}
	var b strings.Builder
	linked := conversations.LinkButton(purpose, "en") != ""
	b.WriteString("| language | body |")
	if linked {
		b.WriteString(" button |")
	}
	b.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", map[bool]int{true: 1}[linked]) + "\n")
	for _, locale := range conversations.Locales() {
		numbered.Locale = locale
		fmt.Fprintf(&b, "| `%s` | %s |", locale, conversations.Merchant{}.Text(conversations.WhatsApp, purpose, numbered))
		if linked {
			b.WriteString(" " + conversations.LinkButton(purpose, locale) + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestTemplatesCanBeSubmitted holds the texts against what WhatsApp refuses.
func TestTemplatesCanBeSubmitted(t *testing.T) {
	t.Parallel()
	variable := regexp.MustCompile(`\{\{\d\}\}`)
	for purpose, values := range map[conversations.Purpose]int{conversations.PurposePayment: 3, conversations.PurposeReceipt: 3, conversations.PurposeCancelled: 2, conversations.PurposeRefund: 3} {
		rows := strings.Split(strings.TrimSpace(printedTemplates(purpose)), "\n")[2:]
		if len(rows) != len(conversations.Locales()) {
			t.Errorf("%s: %d rows, want one for each of %v", purpose, len(rows), conversations.Locales())
		}
		for _, row := range rows {
			cells := strings.Split(row, "|")
			body := strings.TrimSpace(cells[2])
			found := variable.FindAllString(body, -1)
			slices.Sort(found)
			switch at := variable.FindAllStringIndex(body, -1); {
			case len(found) != values || len(slices.Compact(found)) != values:
				t.Errorf("%s: %s has the variables %v, want %d", purpose, body, found, values)
			case at[0][0] == 0 || at[len(at)-1][1] == len(body):
				t.Errorf("%s: %s begins or ends with a variable", purpose, body)
			case len([]rune(body)) > 1024:
				t.Errorf("%s: %s is longer than 1024 characters", purpose, body)
			}
			if len(cells) > 4 {
				if label := strings.TrimSpace(cells[3]); label == "" || len([]rune(label)) > 20 {
					t.Errorf("%s: the button %q is not 1 to 20 characters", purpose, label)
				}
			}
		}
	}
}

// fenced returns a page's blocks of a language, without their indentation.
func fenced(t *testing.T, file, language string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	in, indent := false, ""
	for line := range strings.Lines(string(b)) {
		bare := strings.TrimSpace(line)
		switch {
		case in && strings.HasPrefix(bare, "```"):
			in = false
		case in:
			found[len(found)-1] += strings.TrimPrefix(line, indent)
		case bare == "```"+language:
			in, indent = true, line[:strings.Index(line, "`")]
			found = append(found, "")
		}
	}
	return found
}

// TestProviderGuidesExamplesWork: the senders that merchants copy are taken by
// their adapters.
func TestProviderGuidesExamplesWork(t *testing.T) {
	t.Parallel()
	for _, r := range guided {
		shown := map[conversations.Channel]bool{}
		for _, block := range fenced(t, guideOf(r), "yaml") {
			var senders []map[string]string
			if err := yaml.Unmarshal([]byte(block), &senders); err != nil {
				t.Fatalf("%s: %v in\n%s", guideOf(r), err, block)
			}
			for _, s := range senders {
				channel, id := conversations.Channel(s["channel"]), s["id"]
				if s["provider"] != r.Name || id == "" || !slices.Contains(r.Channels, channel) {
					t.Errorf("%s shows a sender %q of %q for %q", guideOf(r), id, s["provider"], channel)
				}
				shown[channel] = true
				values := map[string]string{}
				for name, v := range s {
					if secret, is := strings.CutSuffix(name, fileSuffix); is {
						name, v = secret, "0123456789abcdefghijklmnopqrstuvwxyz" // what would be in the file
					}
					if !slices.Contains([]string{"id", "provider", "channel"}, name) {
						values[name] = v
					}
				}
				if _, err := r.New(providers.Settings{
					SenderID: id, Channel: channel, MerchantID: "acme", WebhookURL: "https://pay.acme.example/webhooks/" + id, Values: values,
				}, &http.Client{}, slog.New(slog.DiscardHandler)); err != nil {
					t.Errorf("%s: sender %s: %v", guideOf(r), id, err)
				}
			}
		}
		for _, channel := range r.Channels {
			if !shown[channel] {
				t.Errorf("%s shows no sender for %s", guideOf(r), channel)
			}
		}
	}
}

// TestSendersExample: the answer on the page is one that the API could give.
func TestSendersExample(t *testing.T) {
	t.Parallel()
	blocks := fenced(t, "docs/providers/README.md", "json")
	if len(blocks) != 1 {
		t.Fatalf("%d examples: this test does not see them", len(blocks))
	}
	var shown sendersOutput
	d := json.NewDecoder(strings.NewReader(blocks[0]))
	d.DisallowUnknownFields()
	if err := d.Decode(&shown.Body); err != nil {
		t.Fatal(err)
	}
	for _, s := range shown.Body.Items {
		state := conversations.SenderState{}
		if h := s.Hold; h != nil {
			state.Hold = &conversations.Hold{Reason: h.Reason, Code: h.Code, Until: h.Until, Fail: h.Fails}
			if got := holdText(*state.Hold); got != h.Text {
				t.Errorf("%s: the hold says %q, want %q", s.ID, h.Text, got)
			}
		}
		for _, n := range s.Notices {
			state.Notices = append(state.Notices, conversations.Notice{
				Subject: n.Subject, Name: n.Name, Language: n.Language, Standing: n.Standing, Word: n.Word, Detail: n.Detail, At: n.At, Until: n.Until,
			})
			if got := noticeText(state.Notices[len(state.Notices)-1]); got != n.Text {
				t.Errorf("%s: the notice says %q, want %q", s.ID, n.Text, got)
			}
		}
		sender := &SenderConfig{ID: s.ID, Channel: s.Channel, Provider: s.Provider, Settings: Settings{"template_payment": "payment_request"}}
		at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		if standing, text := standingOf(sender, state, at); standing != s.Standing || text != s.Text {
			t.Errorf("%s stands %s: %s, want %s: %s", s.ID, s.Standing, s.Text, standing, text)
		}
		if limits := limitsDocument(limitsInForce(sender)); limits != s.Limits {
			t.Errorf("%s: limits %+v, want %+v", s.ID, s.Limits, limits)
		}
	}
	if len(shown.Body.Items) < 2 {
		t.Errorf("%d senders are shown", len(shown.Body.Items))
	}
}

// TestProviderGuidesNameSettings: a word in code that looks like a setting of
// the provider is one.
func TestProviderGuidesNameSettings(t *testing.T) {
	t.Parallel()
	looks := regexp.MustCompile(`^(template|content|webhook|auth|access|app|account|api|phone|waba|verify|messaging)_[a-z_]+$`)
	elsewhere := []string{ // words of the companies' own
		"account_update", "account_alerts", "account_review_update", "phone_number_quality_update", "phone_number_name_update",
		"template_category_update", "webhook_configuration",
	}
	for _, r := range guided {
		for _, word := range codeSpans(readPage(t, guideOf(r)).text) {
			if looks.MatchString(word) && !slices.Contains(elsewhere, word) && !slices.ContainsFunc(r.Settings, func(s providers.Setting) bool { return s.Name == word }) {
				t.Errorf("%s speaks of %s, which is no setting of %s", guideOf(r), word, r.Name)
			}
		}
	}
}

// TestTwilioGuideHasTheOverrides: every webhook address on Twilio's page lets
// it try again, as its own check wants.
func TestTwilioGuideHasTheOverrides(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "providers", "twilio.md"))
	if err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile("https://pay\\.acme\\.example/webhooks/[a-z-]+([^\\s`]*)")
	found := address.FindAllStringSubmatch(string(text), -1)
	for _, m := range found {
		if m[1] != twilio.Overrides {
			t.Errorf("%s does not end in %s", m[0], twilio.Overrides)
		}
	}
	if len(found) < 2 {
		t.Errorf("%d addresses: this test does not see them", len(found))
	}
}

// TestProviderGuidesNameEveryCheck: the table of what the doctor says has a row
// for everything that a provider's check looks at, and what the rows say it
// prints is what it prints.
func TestProviderGuidesNameEveryCheck(t *testing.T) {
	t.Parallel()
	code := map[string]*checkWords{"docs/providers/README.md": {}}
	for _, r := range guided {
		code[guideOf(r)] = &checkWords{}
	}
	for _, s := range moduleSources(t) {
		if s.isTest() {
			continue
		}
		file := "docs/providers/README.md"
		if name, ok := strings.CutPrefix(s.pkg(), "gateway/providers/"); ok {
			file = "docs/providers/" + name + ".md"
		} else if !strings.HasPrefix(s.file, "gateway/doctor") && s.file != "gateway/api_senders.go" {
			continue
		}
		if w := code[file]; w != nil {
			w.collect(s.syntax)
		}
	}
	for file, w := range code {
		documented := map[string]bool{}
		for _, row := range tableRows(readPage(t, file), "check") {
			for _, name := range codeSpans(row[0]) {
				documented[name] = true
				name = strings.TrimSuffix(name, "...")
				if !slices.Contains(w.texts, name) && !slices.Contains(w.names, name) {
					t.Errorf("%s has a row for %q, which nothing prints", file, name)
				}
			}
			for _, says := range codeSpans(row[1]) {
				if !slices.ContainsFunc(w.texts, func(text string) bool { return strings.Contains(text, strings.TrimSuffix(says, "...")) }) {
					t.Errorf("%s has %q for %s, which nothing prints", file, says, row[0])
				}
			}
		}
		for _, name := range w.names {
			if !documented[name] {
				t.Errorf("%s has no row for the check %q", file, name)
			}
		}
		if len(documented) < 3 {
			t.Errorf("%s names %d checks: this test does not see them", file, len(documented))
		}
		for _, field := range firstColumn(readPage(t, file), "field") {
			if !slices.Contains(w.texts, field) {
				t.Errorf("%s has a row for the webhook field %s, which is not read", file, field)
			}
		}
	}
}

// checkWords are the names of the checks in some code, and every text in it.
type checkWords struct{ names, texts []string }

func (w *checkWords) collect(f *ast.File) {
	name := func(target string, value ast.Expr) {
		lower := strings.ToLower(target)
		if text, ok := leadingText(value); ok && (lower == "check" || strings.HasSuffix(target, "Check")) {
			if text = strings.TrimSpace(text); text != "" && !slices.Contains(w.names, text) {
				w.names = append(w.names, text)
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
				w.texts = append(w.texts, text)
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok {
				name(key.Name, n.Value)
			}
		case *ast.ValueSpec:
			for i, value := range n.Values {
				name(n.Names[i].Name, value)
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if target, ok := left.(*ast.Ident); ok && i < len(n.Rhs) {
					name(target.Name, n.Rhs[i])
				}
			}
		}
		return true
	})
}

// leadingText returns the literal that an expression begins with.
func leadingText(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return leadingText(e.X)
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	}
	return "", false
}

// tableRows returns the cells of the rows of every table whose first heading is
// name.
func tableRows(p page, name string) [][]string {
	var rows [][]string
	in := false
	for line := range strings.Lines(p.text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch {
		case len(cells) < 2:
			in = false
		case strings.TrimSpace(cells[0]) == name:
			in = true
		case in && !strings.HasPrefix(strings.TrimSpace(cells[0]), "---"):
			rows = append(rows, cells)
		}
	}
	return rows
}
