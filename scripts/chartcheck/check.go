package chartcheck

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/chartutil"
)

// Stopping is how long a gateway takes to stop.
type Stopping struct {
	Within time.Duration // at most, after the drain, as StopWithin reads it
	Drain  time.Duration // where the configuration does not say, as DefaultDrain reads it
}

// Check lints and renders the chart in dir with the values in a file, decodes
// what comes of it, and returns an error that joins all that is wrong.
func Check(dir, valuesFile string, stopping Stopping) error {
	values, err := chartutil.ReadValuesFile(valuesFile)
	if err != nil {
		return err
	}
	_, err = check(dir, values, stopping)
	return err
}

func check(dir string, values map[string]any, stopping Stopping) (objects, error) {
	if err := lintStrictly(dir, values); err != nil {
		return objects{}, fmt.Errorf("lint: %w", err)
	}
	r, err := render(dir, values)
	if err != nil {
		return objects{}, fmt.Errorf("template: %w", err)
	}
	if strings.TrimSpace(r.notes) == "" {
		return objects{}, errors.New("NOTES.txt says nothing")
	}
	all, err := decode(r.manifests)
	if err != nil {
		return objects{}, fmt.Errorf("decode: %w", err)
	}
	var errs []error
	for _, problem := range examine(all, references(values), stopping) {
		errs = append(errs, errors.New(problem))
	}
	return all, errors.Join(errs...)
}

// references lists what the values say is in the cluster already: Secrets,
// ConfigMaps, an account.
func references(values chartutil.Values) []string {
	var found []string
	name := func(in any, keys ...string) {
		for _, key := range keys {
			m, _ := in.(map[string]any) // a value of another type has no such key
			in = m[key]
		}
		if s, _ := in.(string); s != "" {
			found = append(found, s)
		}
	}
	list := func(in any) []any {
		l, _ := in.([]any) // absent: none
		return l
	}
	all := values.AsMap()
	name(all, "linkKeys", "existingSecret")
	name(all, "ingress", "tlsSecret")
	for _, key := range []string{"secretFiles", "secretEnv"} {
		for _, s := range list(all[key]) {
			name(s, "existingSecret")
		}
	}
	for _, v := range list(all["extraVolumes"]) {
		name(v, "secret", "secretName")
		name(v, "configMap", "name")
	}
	if account, _ := all["serviceAccount"].(map[string]any); account["create"] == false {
		name(account, "name")
	}
	if image, _ := all["image"].(map[string]any); image != nil {
		for _, s := range list(image["pullSecrets"]) {
			if s, is := s.(string); is {
				found = append(found, s)
			}
		}
	}
	return found
}

// drainRow is the row of docs/configuration.md about drain.
var drainRow = regexp.MustCompile("(?m)^\\| `drain` \\|[^|]*\\| `([^`]+)` \\|")

// DefaultDrain reads from the printed reference of the configuration how long a
// gateway goes on serving when it is asked to stop, unless it is told otherwise.
func DefaultDrain(file string) (time.Duration, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	row := drainRow.FindSubmatch(text)
	if row == nil {
		return 0, fmt.Errorf("%s has no row about drain", file)
	}
	return time.ParseDuration(string(row[1]))
}

// StopWithin reads from the gateway's source how long stopping may take: the
// constant stopWithin, a number times time.Second.
func StopWithin(file string) (time.Duration, error) {
	syntax, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return 0, err
	}
	for _, d := range syntax.Decls {
		g, is := d.(*ast.GenDecl)
		if !is {
			continue
		}
		for _, s := range g.Specs {
			v, is := s.(*ast.ValueSpec)
			if !is || len(v.Names) != 1 || v.Names[0].Name != "stopWithin" || len(v.Values) != 1 {
				continue
			}
			if seconds, is := secondsOf(v.Values[0]); is {
				return seconds, nil
			}
			return 0, fmt.Errorf("%s: stopWithin is not a number times time.Second any more", file)
		}
	}
	return 0, fmt.Errorf("%s declares no stopWithin", file)
}

func secondsOf(e ast.Expr) (time.Duration, bool) {
	product, is := e.(*ast.BinaryExpr)
	if !is || product.Op != token.MUL {
		return 0, false
	}
	number, is := product.X.(*ast.BasicLit)
	if !is {
		return 0, false
	}
	unit, is := product.Y.(*ast.SelectorExpr)
	if !is || unit.Sel.Name != "Second" {
		return 0, false
	}
	n, exact := constant.Int64Val(constant.MakeFromLiteral(number.Value, number.Kind, 0))
	return time.Duration(n) * time.Second, exact
}
