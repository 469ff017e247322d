package main

import (
	"context"
	"flag"
	"go/ast"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
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
	for _, c := range calls {
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
// that the gateway makes, and no other.
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
	compare(t, "docs/operate.md", "metric", firstColumn(readPage(t, "docs/operate.md"), "metric"), made)
}

var metricForm = regexp.MustCompile(`^"paythread_[a-z_]+"$`)

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
