package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// ConfigProblem is one thing that is wrong with the configuration.
type ConfigProblem struct {
	File     string // where the value stands; empty for one from the environment
	Line     int    // 1 is the first line; 0 where there is none to name
	Variable string // the environment variable it came from, if it did
	Path     string // the key, such as merchants[0].public_url
	Message  string // what is wrong and what would be right; never holds a secret
}

// String returns the problem on one line, its place first.
func (p ConfigProblem) String() string {
	var b strings.Builder
	switch {
	case p.Variable != "":
		b.WriteString("environment " + p.Variable + ": ")
	case p.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", p.File, p.Line)
	case p.File != "":
		b.WriteString(p.File + ": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// ConfigProblems is everything that is wrong with the configuration, as an error.
type ConfigProblems []ConfigProblem

// Error returns a line for each problem.
func (ps ConfigProblems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

const (
	variablePrefix = "PAYTHREAD"
	fileSuffix     = "_file" // behind a secret's key: the value is in that file
	largestConfig  = 1 << 20
	largestSecret  = 64 << 10
)

// loadConfig reads the file and the environment (as os.Environ returns it). An
// error is a ConfigProblems with all that is wrong, except where the file cannot be
// read at all.
func loadConfig(file string, environ []string) (*Config, error) {
	c, _, err := readConfig(file, environ, nil)
	return c, err
}

// readConfig is loadConfig that also tells what was in the files that it read,
// as far as it came. Whoever reads again gives the same pipes.
func readConfig(file string, environ []string, once pipes) (*Config, contents, error) {
	r := newReader(file, environ)
	r.once = once
	data, err := r.content(file, largestConfig)
	if err != nil {
		return nil, r.read, fmt.Errorf("read configuration: %w", err)
	}
	c, err := r.config(data)
	return c, r.read, err
}

// parseConfig is loadConfig for a file whose content is at hand. Relative
// paths in it start where the file lies.
func parseConfig(file string, data []byte, environ []string) (*Config, error) {
	return newReader(file, environ).config(data)
}

func newReader(file string, environ []string) *reader {
	r := &reader{
		file:   file,
		env:    make(map[string]string),
		names:  make(map[string]string),
		places: make(map[string]place),
		bad:    make(map[string]bool),
		read:   make(contents),
		fixed:  make(map[string]digest),
	}
	for _, e := range environ {
		name, v, _ := strings.Cut(e, "=")
		// An empty variable counts as absent: compose files and charts leave
		// such behind for what is not set.
		if strings.HasPrefix(name, variablePrefix+"_") && v != "" && !serviceLink.MatchString(name) {
			r.env[name] = v
		}
	}
	return r
}

// config reads the file's content.
func (r *reader) config(data []byte) (*Config, error) {
	c := &Config{fixed: r.fixed}
	root, ok := r.document(data)
	if ok {
		ok = r.section("", variablePrefix, root, 1, c.section())
	}
	if ok {
		r.unknownVariables()
		c.check(r)
	}
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, func(a, b ConfigProblem) int { return a.Line - b.Line })
		return nil, ConfigProblems(r.problems)
	}
	slices.SortStableFunc(r.hints, func(a, b ConfigProblem) int { return a.Line - b.Line })
	c.Hints = r.hints
	return c, nil
}

// serviceLink matches the variables that Kubernetes gives to every pod for a
// Service called paythread, or paythread-something. They are not ours, and no
// key of ours may have such a name.
var serviceLink = regexp.MustCompile(`^PAYTHREAD(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// place is where a value came from.
type place struct {
	line     int
	variable string
}

// reader walks the file along the fields and collects all problems.
type reader struct {
	file     string
	env      map[string]string // PAYTHREAD_... and its value
	names    map[string]string // variable to the key it sets, for all keys that could be set
	places   map[string]place  // key to where its value stands
	bad      map[string]bool   // keys that have a problem of their own already
	problems []ConfigProblem
	hints    []ConfigProblem // what is right and worth a look
	unfilled []string        // keys whose secret is still the example's placeholder
	read     contents        // the files that values came from, but for pipes
	once     pipes
	fixed    map[string]digest // what is written under the keys that only a restart changes
}

// document parses the YAML and returns its one mapping, nil for an empty file.
func (r *reader) document(data []byte) (*yaml.Node, bool) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, true
	case err != nil:
		r.syntax(data, err)
		return nil, false
	}
	if err := dec.Decode(&more); err == nil {
		r.add(place{line: more.Line}, "", "a second YAML document begins here, want one document")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(data, err)
	}
	if len(doc.Content) == 0 {
		return nil, true
	}
	return doc.Content[0], r.unmarked(doc.Content[0])
}

var (
	syntaxLine    = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntax reports what the YAML parser says, with its line made ours. What it
// quotes is left out: it may be a secret.
func (r *reader) syntax(data []byte, err error) {
	text := err.Error()
	line := 0
	if m := syntaxLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // 0 where the parser names no line
		text = text[len(m[0]):]
	}
	lines := strings.Split(string(data), "\n")
	if m := unknownAnchor.FindStringSubmatch(text); m != nil {
		line = 1 + slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "*"+m[1]) })
		text = "a value that begins with * must stand in quotes"
	}
	if text == "found character that cannot start any token" && line > 0 && line <= len(lines) {
		indent := lines[line-1][:len(lines[line-1])-len(strings.TrimLeft(lines[line-1], " \t"))]
		if strings.Contains(indent, "\t") {
			text = "the line begins with a tab, want spaces"
		} else {
			text = "a value that begins with @, % or ` must stand in quotes"
		}
	}
	r.add(place{line: line}, "", "not valid YAML: "+keyText(text))
}

// unmarked refuses values that YAML reads otherwise than they look: a password
// !secret is a tag and no value, and &secret an anchor.
func (r *reader) unmarked(node *yaml.Node) bool {
	fine := true
	switch {
	case node.Style&yaml.TaggedStyle != 0 && !slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}, node.ShortTag()):
		r.add(place{line: node.Line}, "", "a value that begins with ! must stand in quotes")
		fine = false
	case node.Anchor != "" && node.Kind == yaml.ScalarNode && node.Value == "":
		r.add(place{line: node.Line}, "", "a value that begins with & must stand in quotes")
		fine = false
	}
	for _, n := range node.Content { // what an alias stands for is met where it is written
		fine = r.unmarked(n) && fine
	}
	return fine
}

func (r *reader) add(at place, path, message string) {
	r.problems = append(r.problems, r.report(at, path, message))
	r.bad[path] = true
}

func (r *reader) report(at place, path, message string) ConfigProblem {
	p := ConfigProblem{Path: path, Message: message, Variable: at.variable}
	if at.variable == "" {
		p.File, p.Line = r.file, at.line
	}
	return p
}

// problem reports something about the key at path, at the place of the key or
// of the nearest one that holds it.
func (r *reader) problem(path, format string, args ...any) {
	r.add(r.placeOf(path), path, fmt.Sprintf(format, args...))
}

// hint reports something about the key at path that is right and yet worth a
// look.
func (r *reader) hint(path, format string, args ...any) {
	r.hints = append(r.hints, r.report(r.placeOf(path), path, fmt.Sprintf(format, args...)))
}

func (r *reader) placeOf(path string) place {
	at, found := r.places[path]
	for p := path; !found && p != ""; {
		p = parentOf(p)
		at, found = r.places[p]
	}
	return at
}

// fine tells that none of the keys has a problem, so that a check over several
// of them says something new.
func (r *reader) fine(paths ...string) bool {
	return !slices.ContainsFunc(paths, func(p string) bool { return r.bad[p] })
}

func parentOf(path string) string {
	if i := strings.LastIndexAny(path, ".["); i > 0 {
		return path[:i]
	}
	return ""
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// entry is one key of a mapping with its value.
type entry struct {
	key   *yaml.Node
	value *yaml.Node
}

// section reads one mapping and tells whether it is one. names is what the
// variables of its fields begin with; empty, they have none.
func (r *reader) section(path, names string, node *yaml.Node, line int, s section) bool {
	r.places[path] = place{line: line}
	entries, ok := r.entries(path, node)
	if !ok {
		return false
	}
	for _, f := range s.fields {
		r.field(path, names, entries, line, f)
	}
	known := keysOf(s.fields)
	if s.by != "" {
		chosen := slices.IndexFunc(s.variants, func(v variant) bool { return v.name == s.chosen() })
		if chosen < 0 {
			return true // what the other keys should be is not known; the choice itself was reported
		}
		for _, f := range s.variants[chosen].fields {
			r.field(path, names, entries, line, f)
		}
		known = append(known, keysOf(s.variants[chosen].fields)...)
	}
	unknown := slices.DeleteFunc(slices.Sorted(maps.Keys(entries)), func(k string) bool { return slices.Contains(known, k) })
	for _, k := range unknown {
		r.add(place{line: entries[k].key.Line}, join(path, keyText(k)), "is not a setting"+suggestion(k, known))
	}
	return true
}

// keyText writes a foreign key so that it stays on its line.
func keyText(k string) string {
	if strings.ContainsFunc(k, func(r rune) bool { return !unicode.IsGraphic(r) }) || k == "" {
		return strconv.Quote(shorten(k))
	}
	return shorten(k)
}

func keysOf(fields []field) []string {
	var keys []string
	for _, f := range fields {
		keys = append(keys, f.key)
		if f.secret {
			keys = append(keys, f.key+fileSuffix)
		}
	}
	return keys
}

// entries returns the mapping by key; what is no mapping or stands twice is
// reported.
func (r *reader) entries(path string, node *yaml.Node) (map[string]entry, bool) {
	node = target(node)
	if node == nil {
		return nil, true
	}
	if node.Kind != yaml.MappingNode {
		r.add(place{line: node.Line}, path, "want a mapping: keys, each with its value")
		return nil, false
	}
	entries := make(map[string]entry)
	for i := 0; i+1 < len(node.Content); i += 2 {
		k, v := node.Content[i], node.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			r.add(place{line: k.Line}, path, "want a word as key")
			continue
		case k.Tag == "!!merge":
			r.add(place{line: k.Line}, path, "merge keys (<<) are not supported, write the keys out")
			continue
		}
		if first, twice := entries[k.Value]; twice {
			r.add(place{line: k.Line}, join(path, keyText(k.Value)), fmt.Sprintf("stands twice, first on line %d; keep one", first.key.Line))
			continue
		}
		entries[k.Value] = entry{k, v}
	}
	return entries, true
}

// target follows aliases; nil stands for a value that is not there. An empty
// text is not there either, as with variables.
func target(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node != nil && node.Kind == yaml.ScalarNode && (node.Tag == "!!null" || node.Value == "") {
		return nil
	}
	return node
}

func (r *reader) field(path, names string, entries map[string]entry, line int, f field) {
	p := join(path, f.key)
	variable := ""
	if names != "" && !f.fixed {
		variable = names + "_" + variableOf(f.key)
	}
	e := entries[f.key]
	if e.key != nil {
		line = e.key.Line
	}
	switch f.kind {
	case kindSection:
		r.section(p, variable, e.value, line, f.section)
	case kindItems:
		r.places[p] = place{line: line}
		r.items(p, variable, target(e.value), f)
	default:
		r.scalar(p, variable, entries, line, f)
	}
}

func variableOf(key string) string {
	return strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

func (r *reader) items(path, variable string, node *yaml.Node, f field) {
	var elements []*yaml.Node
	switch {
	case node == nil:
	case node.Kind == yaml.SequenceNode:
		elements = node.Content
	default:
		r.add(place{line: node.Line}, path, "want a list, each element behind a \"- \"")
		return
	}
	if f.required && len(elements) == 0 {
		r.problem(path, "is missing, want at least one: %s", f.doc)
	}
	for i, element := range elements {
		names := ""
		if id := scalarAt(element, f.identity); id != "" && variable != "" {
			names = variable + "_" + variableOf(id)
		}
		r.section(fmt.Sprintf("%s[%d]", path, i), names, element, element.Line, f.add())
	}
}

// scalarAt returns the scalar of that key in a mapping, or nothing.
func scalarAt(node *yaml.Node, key string) string {
	node = target(node)
	if node == nil || node.Kind != yaml.MappingNode {
		return ""
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if v := target(node.Content[i+1]); node.Content[i].Value == key && v != nil && v.Kind == yaml.ScalarNode {
			return v.Value
		}
	}
	return ""
}

// scalar reads a field that is one value, or a list of such: from the
// environment, else from the file, else by default.
func (r *reader) scalar(path, variable string, entries map[string]entry, line int, f field) {
	r.places[path] = place{line: line}
	fromEnv := r.variable(path, variable)
	var fileFromEnv *string
	if f.secret && variable != "" {
		fileFromEnv = r.variable(path+fileSuffix, variable+variableOf(fileSuffix))
	}
	inline, named := entries[f.key], entry{}
	if f.secret {
		named = entries[f.key+fileSuffix]
	}
	inlineNode, namedNode := target(inline.value), target(named.value)

	switch {
	case fromEnv != nil && fileFromEnv != nil:
		r.add(place{variable: variable}, path, "is given itself and as a file, keep one of the two variables")
	case fromEnv != nil:
		r.places[path] = place{variable: variable}
		r.keep(path, f, elementsOf(*fromEnv, f.list)...)
	case fileFromEnv != nil:
		r.places[path] = place{variable: variable + variableOf(fileSuffix)}
		r.keepFile(path, f, *fileFromEnv)
	case inlineNode != nil && namedNode != nil:
		r.add(place{line: named.key.Line}, path, fmt.Sprintf("is given itself (line %d) and as a file, keep one of the two", inline.key.Line))
	case namedNode != nil:
		r.places[path] = place{line: named.key.Line}
		if namedNode.Kind != yaml.ScalarNode {
			r.problem(path, "want the path of one file under %s%s", f.key, fileSuffix)
			return
		}
		name := namedNode.Value
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(r.file), name)
		}
		r.keepFile(path, f, name)
	case inlineNode != nil:
		r.keepNode(path, f, inlineNode)
	case f.def != "":
		r.keep(path, f, elementsOf(f.def, f.list)...)
	case f.required && f.secret:
		r.problem(path, "is missing, give it as %s or %s%s: %s", f.key, f.key, fileSuffix, f.doc)
	case f.required && len(f.choices) > 1:
		r.problem(path, "is missing, want %s: %s", orList(f.choices), f.doc)
	case f.required:
		r.problem(path, "is missing: %s", f.doc)
	}
}

// variable claims a variable's name for a key and returns its value, if any.
// Where ids make two keys claim one name, neither may be set by it.
func (r *reader) variable(path, name string) *string {
	if name == "" {
		return nil
	}
	other, claimed := r.names[name]
	if !claimed {
		r.names[name] = path
	}
	v, found := r.env[name]
	if !found {
		return nil
	}
	if claimed && other != path {
		r.add(place{variable: name}, path, "could also mean "+other+", set the two in the file")
		return nil
	}
	return &v
}

func (r *reader) keepNode(path string, f field, node *yaml.Node) {
	switch {
	case !f.list && node.Kind == yaml.ScalarNode:
		r.keep(path, f, node.Value)
	case !f.list:
		r.problem(path, "want one value, not a list or a mapping")
	case node.Kind != yaml.SequenceNode:
		r.problem(path, "want a list, such as [a, b]")
	default:
		for i, element := range node.Content {
			p := fmt.Sprintf("%s[%d]", path, i)
			r.places[p] = place{line: element.Line}
			if e := target(element); e != nil && e.Kind == yaml.ScalarNode {
				r.keepOne(p, f, e.Value)
			} else {
				r.problem(p, "want one value")
			}
		}
	}
}

func (r *reader) keep(path string, f field, written ...string) {
	for i, w := range written {
		p := path
		if f.list {
			p = fmt.Sprintf("%s[%d]", path, i)
			r.places[p] = r.places[path]
		}
		r.keepOne(p, f, w)
	}
}

func (r *reader) keepOne(path string, f field, written string) {
	if f.restart {
		r.fixed[path] = digestOf([]byte(written))
	}
	err := f.set(written)
	switch {
	case err != nil && f.secret:
		r.problem(path, "%v", err)
	case err != nil:
		r.problem(path, "%q is wrong, %v%s", shorten(withoutUserinfo(written)), err, suggestion(written, f.choices))
	case f.secret && strings.HasPrefix(written, placeholder):
		r.unfilled = append(r.unfilled, path)
	}
}

var userinfo = regexp.MustCompile(`//.*@`)

// withoutUserinfo takes out of an address who may pass, and with what word.
func withoutUserinfo(written string) string {
	return userinfo.ReplaceAllString(written, "//"+redacted+"@")
}

// byteOrderMark is what some editors begin a file with.
const byteOrderMark = "\ufeff"

// keepFile takes a secret from a file, without the newlines that editors leave
// at its end.
func (r *reader) keepFile(path string, f field, name string) {
	data, err := r.content(name, largestSecret)
	if err != nil {
		r.problem(path, "%v", err)
		return
	}
	written := strings.TrimRight(string(data), "\r\n")
	switch {
	case written == "":
		r.problem(path, "the file %s is empty", name)
	case strings.HasPrefix(written, byteOrderMark):
		r.problem(path, "the file %s begins with a byte order mark, which would be part of the secret; save it without one", name)
	case !utf8.ValidString(written) || strings.ContainsRune(written, 0):
		r.problem(path, "the file %s is not a text in UTF-8", name)
	default:
		r.keepOne(path, f, written)
	}
}

// pipes keeps what came from files that give it only once, such as the pipe of
// a shell's <(command) or of a program that decrypts: opened again they would
// be empty, or wait for ever.
type pipes map[string][]byte

// content reads a file, and notes what is in it if that may change.
func (r *reader) content(name string, most int64) ([]byte, error) {
	if data, had := r.once[name]; had {
		return data, nil
	}
	data, regular, err := readBounded(name, most)
	switch {
	case err != nil || regular:
		r.read.note(name, data, err)
	case r.once != nil:
		r.once[name] = data
	}
	return data, err
}

// readBounded reads a file that is not larger than most, and tells whether it is
// a regular one.
func readBounded(name string, most int64) (data []byte, regular bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	if info, err := f.Stat(); err == nil {
		regular = info.Mode().IsRegular()
	}
	data, err = io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("the file %s is larger than %d bytes", name, most)
	}
	return data, regular, err
}

// elementsOf splits what is written on one line for a list.
func elementsOf(written string, list bool) []string {
	if !list {
		return []string{written}
	}
	var elements []string
	for e := range strings.SplitSeq(written, ",") {
		if e = strings.TrimSpace(e); e != "" {
			elements = append(elements, e)
		}
	}
	return elements
}

// unknownVariables reports what looks like ours and is not.
func (r *reader) unknownVariables() {
	for _, name := range slices.Sorted(maps.Keys(r.env)) {
		if _, known := r.names[name]; !known {
			r.add(place{variable: name}, "", "is not the name of a setting"+suggestion(name, slices.Sorted(maps.Keys(r.names))))
		}
	}
}

// suggestion names the nearest of the known words, if one is near.
func suggestion(word string, known []string) string {
	best, least := "", max(2, len(word)/3)+1
	for _, k := range known {
		if d := distance(word, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours between two words. Long words are not worth it.
func distance(a, b string) int {
	if len(a) > 80 || len(b) > 80 {
		return max(len(a), len(b))
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// shorten keeps foreign text in a message to a readable length.
func shorten(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
