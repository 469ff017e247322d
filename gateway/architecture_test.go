package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// source is one Go file of the module, as far as the rules look at it.
type source struct {
	file    string // "checkout/page.go"
	imports []string
	syntax  *ast.File // nil in the tests of the rules themselves
}

func (s source) pkg() string  { return path.Dir(s.file) }
func (s source) isTest() bool { return strings.HasSuffix(s.file, "_test.go") }

// module is the module's path, the beginning of all our imports.
const module = "paythread/"

// ownRule says which packages of ours a package may import. A folder without a
// row of its own falls under the row of its parent's "/*".
type ownRule struct {
	pkg   string
	may   []string // in its code
	tests []string // and in its tests besides
	why   string
}

// anything stands for every package of ours.
const anything = "*"

var ownRules = []ownRule{
	{"conversations", nil, []string{"conversations/redistest"},
		"the domain knows nobody of ours: whoever needs it imports it, and it can be read and tested alone"},
	{"conversations/redistest", nil, nil,
		"the servers for tests are used by the domain's own tests, so they cannot know it"},
	{"checkout", []string{"conversations", "checkout/platforms"}, nil,
		"checkout speaks to a platform through its contract, and knows neither receipts nor providers: the gateway hands each what it needs"},
	{"checkout/platforms", []string{"conversations"}, nil,
		"the contract is in the domain's words alone"},
	{"checkout/platforms/cybersource", nil, nil,
		"signing and calling CyberSource is below the platforms and knows nothing of payments"},
	{"checkout/platforms/*", []string{"conversations", "checkout/platforms", "checkout/platforms/cybersource"},
		[]string{"checkout/platforms/platformtest", "simulator/*"},
		"a platform knows its contract, the domain and CyberSource's client; never another platform, nor a page"},
	{"receipts", []string{"conversations"}, nil,
		"receipts declares the links and nonces that it needs, and the gateway hands it checkout's: neither knows the other"},
	{"gateway", []string{anything}, nil,
		"the gateway is where everything is put together"},
	{"gateway/web", nil, []string{"simulator/oms"},
		"the panel lives in other people's pages: it has the REST API and nothing else"},
	{"gateway/providers", []string{"conversations"}, nil,
		"the contract is in the domain's words alone"},
	{"gateway/providers/*", []string{"conversations", "gateway/providers"},
		[]string{"gateway/providers/providertest", "simulator/*"},
		"a provider knows its contract and the domain; never another provider, so that each can be read, tested and removed alone"},
	{"simulator", []string{"simulator/*"}, nil,
		"the simulated world shares no types with us: a wrong field name in an adapter has to show, not to cancel out"},
	{"simulator/*", []string{"simulator/faults"}, nil,
		"the simulated companies share no types with us, nor with each other"},
	{"scripts/*", []string{"conversations", "simulator", "simulator/*"}, nil,
		"what measures the program may write events to the store and play the world around it, and otherwise meets it from outside, as its callers do"},
}

// libraryRule says which files may import something that is not ours. Tests
// may import anything.
type libraryRule struct {
	library string   // and everything below it
	only    []string // patterns of files, as path.Match reads them
	why     string
}

var libraryRules = []libraryRule{
	{"github.com/redis/go-redis/v9", []string{"conversations/*.go", "conversations/redistest/*.go"},
		"only conversations holds a Redis client, so that every key and script stands in one place"},
	{"github.com/alicebob/miniredis/v2", []string{"gateway/demo.go"},
		"the embedded Redis is for the demo and for tests: it keeps nothing"},
	{"github.com/gofiber/fiber/v2", []string{"gateway/*.go", "checkout/page*.go", "receipts/page.go"},
		"Fiber appears in the gateway and in the two pages; adapters and the domain can be used without it"},
	{"github.com/valyala/fasthttp", []string{"gateway/*.go"},
		"fasthttp is Fiber's inside, of use only where the listeners are set up"},
	{"github.com/danielgtaylor/huma/v2", []string{"gateway/*.go"},
		"the REST API is described in the gateway alone"},
	{"github.com/prometheus/client_golang", []string{"gateway/*.go"},
		"what is counted is counted at the edge; the domain hands out numbers"},
	{"net/http", []string{
		"gateway/*.go", "gateway/providers/*.go", "gateway/providers/*/*.go",
		"checkout/platforms/*.go", "checkout/platforms/*/*.go", "simulator/*.go", "simulator/*/*.go", "scripts/*/*.go",
	}, "the domain, the checkout and the receipts know no HTTP client: calls to the outside are the adapters'"},
}

// TestArchitecture holds the import rules: who may depend on whom.
func TestArchitecture(t *testing.T) {
	t.Parallel()
	for _, b := range breaches(moduleSources(t)) {
		t.Error(b)
	}
}

// breaches lists every import that a rule forbids, with the rule's reason.
func breaches(sources []source) []string {
	var found []string
	for _, s := range sources {
		rule, ok := ownRuleOf(s.pkg())
		if !ok {
			found = append(found, fmt.Sprintf("%s: no rule says what package %s may import; give it a row in ownRules, with the reason", s.file, s.pkg()))
			continue
		}
		for _, i := range s.imports {
			if own, is := strings.CutPrefix(i, module); is && !rule.allows(own, s) {
				found = append(found, fmt.Sprintf("%s imports %s: %s", s.file, own, rule.why))
			}
			for _, l := range libraryRules {
				if (i == l.library || strings.HasPrefix(i, l.library+"/")) && !l.allows(s) {
					found = append(found, fmt.Sprintf("%s imports %s: %s", s.file, i, l.why))
				}
			}
		}
	}
	return found
}

func ownRuleOf(pkg string) (ownRule, bool) {
	for _, name := range []string{pkg, path.Dir(pkg) + "/*"} {
		if i := slices.IndexFunc(ownRules, func(r ownRule) bool { return r.pkg == name }); i >= 0 {
			return ownRules[i], true
		}
	}
	return ownRule{}, false
}

func (r ownRule) allows(imported string, by source) bool {
	may := r.may
	if by.isTest() {
		// An external test imports the package that it tests.
		may = slices.Concat(r.may, r.tests, []string{by.pkg()})
	}
	return slices.ContainsFunc(may, func(pattern string) bool {
		ok, err := path.Match(pattern, imported)
		return pattern == anything || ok && err == nil
	})
}

func (l libraryRule) allows(by source) bool {
	return by.isTest() || slices.ContainsFunc(l.only, func(pattern string) bool {
		ok, err := path.Match(pattern, by.file)
		return ok && err == nil
	})
}

// TestArchitectureRulesBite breaks each rule, and looks for its reason.
func TestArchitectureRulesBite(t *testing.T) {
	t.Parallel()
	const redis, fiber = "github.com/redis/go-redis/v9", "github.com/gofiber/fiber/v2"
	for _, tt := range []struct{ file, imported, want string }{
		{"conversations/store.go", "paythread/checkout", "the domain knows nobody"},
		{"conversations/store.go", redis, ""},
		{"conversations/store.go", "net/http", "know no HTTP"},
		{"conversations/store.go", fiber, "adapters and the domain"},
		{"conversations/store_test.go", "paythread/conversations/redistest", ""},
		{"conversations/store_test.go", "paythread/simulator", "the domain knows nobody"},
		{"conversations/redistest/server.go", "paythread/conversations", "cannot know it"},
		{"checkout/page.go", "paythread/receipts", "checkout speaks to a platform"},
		{"checkout/page.go", fiber, ""},
		{"checkout/page_charge.go", fiber + "/utils", ""},
		{"checkout/link.go", fiber, "in the two pages"},
		{"checkout/link.go", redis, "only conversations holds a Redis client"},
		{"checkout/page.go", "paythread/checkout/platforms/unifiedcheckout", "through its contract"},
		{"checkout/platforms/cybersource/client.go", "paythread/conversations", "nothing of payments"},
		{"checkout/platforms/unifiedcheckout/charge.go", "paythread/checkout/platforms/cybersource", ""},
		{"checkout/platforms/unifiedcheckout/charge.go", "paythread/checkout/platforms/secureacceptance", "never another platform"},
		{"checkout/platforms/unifiedcheckout/charge.go", "paythread/simulator/cybersource", "never another platform"},
		{"checkout/platforms/unifiedcheckout/a_test.go", "paythread/simulator/cybersource", ""},
		{"receipts/page.go", "paythread/checkout", "neither knows the other"},
		{"receipts/receipt.go", fiber, "in the two pages"},
		{"gateway/app.go", "paythread/simulator", ""},
		{"gateway/app.go", redis, "only conversations holds a Redis client"},
		{"gateway/app.go", "github.com/alicebob/miniredis/v2", "it keeps nothing"},
		{"gateway/web/script.go", "paythread/conversations", "other people's pages"},
		{"gateway/providers/providers.go", "paythread/gateway/providers/meta", "domain's words"},
		{"gateway/providers/meta/send.go", "paythread/gateway/providers/twilio", "never another provider"},
		{"gateway/providers/meta/send.go", fiber, "adapters and the domain"},
		{"gateway/providers/meta/meta_test.go", "paythread/gateway/providers/meta", ""},
		{"gateway/providers/meta/meta_test.go", "paythread/gateway/providers/twilio", "never another provider"},
		{"simulator/world.go", "paythread/simulator/meta", ""},
		{"simulator/world.go", "paythread/conversations", "shares no types with us"},
		{"simulator/meta/meta.go", "paythread/simulator/twilio", "nor with each other"},
		{"simulator/meta/meta_test.go", "paythread/gateway/providers", "share no types with us"},
		{"helpers/strings.go", "strings", "no rule says what package helpers may import"},
	} {
		t.Run(tt.file+" imports "+tt.imported, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(breaches([]source{{file: tt.file, imports: []string{tt.imported}}}), "\n")
			if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("breaches = %q, want %q in it", got, tt.want)
			}
		})
	}
}

// floatRule says where numbers with a fraction may appear in the code that
// handles money. Elsewhere they may not at all: 0.1 + 0.2 is not 0.3.
type floatRule struct {
	files string // as path.Match reads them
	why   string
}

var floatRules = []floatRule{
	{"conversations/timers.go", "Redis gives the scores of a sorted set as such: these are times"},
	{"conversations/callbacks_queue.go", "scores of sorted sets, and waits that differ a little"},
	{"gateway/metrics*.go", "Prometheus takes nothing else"},
	{"gateway/api_docs.go", "the bounds of a schema in the API's description"},
	{"gateway/api_senders.go", "rates of messages"},
	{"gateway/callbacks_send.go", "seconds in a metric"},
	{"gateway/reload.go", "counts in a metric"},
	{"gateway/sse.go", "seconds in a metric"},
	{"gateway/dispatcher_retry.go", "waits that grow"},
	{"gateway/dispatcher_sender.go", "rates of messages"},
}

// handlesMoney tells whether amounts pass through a package. The providers of
// messages get them as text, and the simulator keeps its own books.
func handlesMoney(pkg string) bool {
	top, _, _ := strings.Cut(pkg, "/")
	return pkg == "gateway" || slices.Contains([]string{"conversations", "checkout", "receipts"}, top)
}

// floatsOf lists where a file uses numbers with a fraction.
func floatsOf(f *ast.File) (found []string) {
	packages := map[string]string{}
	for _, spec := range f.Imports {
		name := path.Base(importPath(spec))
		if spec.Name != nil {
			name = spec.Name.Name
		}
		packages[name] = importPath(spec)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			if slices.Contains([]string{"float32", "float64", "complex64", "complex128"}, n.Name) {
				found = append(found, n.Name)
			}
		case *ast.BasicLit:
			if n.Kind == token.FLOAT || n.Kind == token.IMAG {
				found = append(found, n.Value)
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			switch of, name := packages[x.Name], n.Sel.Name; {
			case of == "strconv" && strings.HasSuffix(name, "Float"),
				of == "math/big" && (strings.HasSuffix(name, "Float") || strings.HasSuffix(name, "Rat")),
				of == "math" && !strings.HasPrefix(name, "Max") && !strings.HasPrefix(name, "Min"):
				found = append(found, x.Name+"."+name)
			}
		}
		return true
	})
	return found
}

// TestMoneyIsNeverAFloat holds amounts to integers in minor units.
func TestMoneyIsNeverAFloat(t *testing.T) {
	t.Parallel()
	used, looked := map[string]bool{}, 0
	for _, s := range moduleSources(t) {
		if s.isTest() || !handlesMoney(s.pkg()) {
			continue
		}
		looked++
		found := floatsOf(s.syntax)
		if len(found) == 0 {
			continue
		}
		i := slices.IndexFunc(floatRules, func(r floatRule) bool {
			ok, err := path.Match(r.files, s.file)
			return ok && err == nil
		})
		if i < 0 {
			t.Errorf("%s uses %s: amounts are integers in minor units and pass nowhere through a float; where it is something else, name the file in floatRules, with the reason",
				s.file, strings.Join(slices.Compact(found), ", "))
			continue
		}
		used[floatRules[i].files] = true
	}
	for _, r := range floatRules {
		if !used[r.files] {
			t.Errorf("nothing in %s needs its exception any more (%s)", r.files, r.why)
		}
	}
	if looked < 100 {
		t.Errorf("only %d files were looked at", looked)
	}
}

func TestFloatsAreFound(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"var a float64":                          "float64",
		"func f(minor int64) float32":            "float32",
		"var a = 1.5":                            "1.5",
		"var a = 1e3":                            "1e3",
		"var a, _ = strconv.ParseFloat(`1`, 64)": "strconv.ParseFloat",
		"var a = strconv.FormatFloat":            "strconv.FormatFloat",
		"var a = strconv.AppendFloat":            "strconv.AppendFloat",
		"var a big.Float":                        "big.Float",
		"var a = big.NewRat":                     "big.NewRat",
		"var a = math.Pow10(2)":                  "math.Pow10",
		"var a = math.Round":                     "math.Round",
		"var a = math.MaxInt64":                  "",
		"var a = strconv.ParseInt":               "",
		"var a big.Int":                          "",
		"var a = 100":                            "",
		"var a = \"1.5\"":                        "",
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "a.go", "package a\nimport (\"math\"; \"math/big\"; \"strconv\")\n"+code, 0)
		if err != nil {
			t.Fatal(code, err)
		}
		if got := strings.Join(floatsOf(f), " "); got != want {
			t.Errorf("%s: found %q, want %q", code, got, want)
		}
	}
	for pkg, want := range map[string]bool{
		"conversations": true, "checkout": true, "checkout/platforms/unifiedcheckout": true, "receipts": true, "gateway": true,
		"gateway/providers/meta": false, "simulator/cybersource": false, "scripts/benchload": false,
	} {
		if got := handlesMoney(pkg); got != want {
			t.Errorf("%s handles money: %v, want %v", pkg, got, want)
		}
	}
}

// TestPackageComments: every package says once what it is for.
func TestPackageComments(t *testing.T) {
	t.Parallel()
	comments := map[string][]string{} // by package: the files that have one
	for _, s := range moduleSources(t) {
		if s.isTest() {
			continue
		}
		if _, ok := comments[s.pkg()]; !ok {
			comments[s.pkg()] = nil
		}
		if s.syntax.Doc == nil {
			continue
		}
		comments[s.pkg()] = append(comments[s.pkg()], s.file)
		text := s.syntax.Doc.Text()
		if s.syntax.Name.Name != "main" && !strings.HasPrefix(text, "Package "+s.syntax.Name.Name+" ") {
			t.Errorf("%s: the package comment begins with %q, want \"Package %s \": go doc shows its first sentence in lists", s.file, firstLine(text), s.syntax.Name.Name)
		}
	}
	for pkg, files := range comments {
		if len(files) != 1 {
			t.Errorf("package %s has %d package comments %v, want one: whoever opens the folder learns what it is for, in one place", pkg, len(files), files)
		}
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// TestRegistryIsComplete: an adapter that is not listed is dead code that
// looks alive.
func TestRegistryIsComplete(t *testing.T) {
	t.Parallel()
	sources := moduleSources(t)
	listed := registeredPackages(t, sources)
	for list, under := range map[string]string{"providerRegistrations": "gateway/providers", "platformRegistrations": "checkout/platforms"} {
		folders := 0
		for _, s := range sources {
			if path.Dir(s.pkg()) != under || s.isTest() || !declaresVar(s.syntax, "Registration") {
				continue
			}
			folders++
			if !slices.Contains(listed[list], s.pkg()) {
				t.Errorf("%s exports a Registration, and %s in gateway/registry.go does not list it: nobody could choose it", s.pkg(), list)
			}
		}
		if folders == 0 {
			t.Errorf("no folder under %s exports a Registration: this test looks in the wrong place", under)
		}
		if len(listed[list]) != folders {
			t.Errorf("%s lists %v, and %d folders under %s export a Registration: an adapter belongs beside its contract", list, listed[list], folders, under)
		}
	}
}

// registeredPackages reads from registry.go which packages' Registration each
// of its lists names.
func registeredPackages(t *testing.T, sources []source) map[string][]string {
	t.Helper()
	i := slices.IndexFunc(sources, func(s source) bool { return s.file == "gateway/registry.go" })
	if i < 0 {
		t.Fatal("there is no gateway/registry.go")
	}
	imported := map[string]string{} // by the name used in the file
	for _, spec := range sources[i].syntax.Imports {
		own, ok := strings.CutPrefix(importPath(spec), module)
		if !ok {
			continue
		}
		name := path.Base(own)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imported[name] = own
	}
	listed := map[string][]string{}
	for _, d := range sources[i].syntax.Decls {
		vars, ok := d.(*ast.GenDecl)
		if !ok || vars.Tok != token.VAR {
			continue
		}
		for _, spec := range vars.Specs {
			value := spec.(*ast.ValueSpec)
			ast.Inspect(value, func(n ast.Node) bool {
				if selected, ok := n.(*ast.SelectorExpr); ok && selected.Sel.Name == "Registration" {
					if x, ok := selected.X.(*ast.Ident); ok {
						listed[value.Names[0].Name] = append(listed[value.Names[0].Name], imported[x.Name])
					}
				}
				return true
			})
		}
	}
	return listed
}

func declaresVar(f *ast.File, name string) bool {
	for _, d := range f.Decls {
		vars, ok := d.(*ast.GenDecl)
		if !ok || vars.Tok != token.VAR {
			continue
		}
		for _, spec := range vars.Specs {
			if slices.ContainsFunc(spec.(*ast.ValueSpec).Names, func(n *ast.Ident) bool { return n.Name == name }) {
				return true
			}
		}
	}
	return false
}

// moduleSources are all Go files of the module, parsed once for all tests, which
// only read them.
func moduleSources(t *testing.T) []source {
	t.Helper()
	found, err := parsedSources()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(found)
}

var parsedSources = sync.OnceValues(func() ([]source, error) {
	var found []source
	files := token.NewFileSet()
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		name := filepath.Base(file)
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != ".." && (name == "testdata" || strings.HasPrefix(name, ".")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		syntax, err := parser.ParseFile(files, file, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{file: strings.TrimPrefix(filepath.ToSlash(file), "../"), syntax: syntax}
		for _, spec := range syntax.Imports {
			s.imports = append(s.imports, importPath(spec))
		}
		found = append(found, s)
		return nil
	})
	slices.SortFunc(found, func(a, b source) int { return cmp.Compare(a.file, b.file) })
	return found, err
})

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value // the parser has refused it already
	}
	return p
}
