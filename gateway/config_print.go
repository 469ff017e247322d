package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// printExample returns a configuration that loads as it is: every field with
// its explanation, its default or a sample. What is neither stands there as a
// comment.
func printExample() []byte {
	var b bytes.Buffer
	b.WriteString("# Configuration of Paythread, printed by \"paythread config example\".\n" +
		"# Values that are shown are the defaults, or samples where there is no default.\n" +
		"# A secret can stand in a file instead: KEY_file with the path, in the place of KEY.\n")
	exampleSection(&b, "", new(Config).section())
	return b.Bytes()
}

const exampleWidth = 110

func exampleSection(b *bytes.Buffer, indent string, s section) {
	fields := slices.Clone(s.fields)
	if s.by != "" {
		v := s.variants[0]
		for i, f := range fields {
			fields[i].sample = cmp.Or(v.samples[f.key], f.sample)
		}
		fields = append(fields, v.fields...)
	}
	for _, f := range fields {
		if f.kind == kindSection || f.kind == kindItems || indent == "" {
			b.WriteString("\n")
		}
		if prose := f.doc + remarks(f); prose != "" {
			comment(b, indent, prose)
		}
		switch {
		case f.kind == kindSection:
			fmt.Fprintf(b, "%s%s:\n", indent, f.key)
			exampleSection(b, indent+"  ", f.section)
		case f.kind == kindItems:
			fmt.Fprintf(b, "%s%s:\n", indent, f.key)
			taken := map[string]bool{}
			for _, element := range oneOfEach(f.add()) {
				var lines bytes.Buffer
				exampleSection(&lines, indent+"    ", element)
				text := withDash(lines.String(), indent)
				if element.by != "" {
					id := element.variants[0].samples[f.identity]
					if taken[id] {
						comment(b, indent, "Or, in the place of the one above:")
						text = commentedOut(text)
					}
					taken[id] = true
				}
				b.WriteString(text)
			}
		default:
			written, shown := exampleValue(f)
			mark := ""
			if !shown {
				mark = "# "
			}
			fmt.Fprintf(b, "%s%s%s: %s\n", indent, mark, f.key, written)
		}
	}
}

// oneOfEach returns a section for each of its variants, that variant first.
func oneOfEach(s section) []section {
	if s.by == "" {
		return []section{s}
	}
	var each []section
	for _, v := range s.variants {
		one := s
		one.variants = []variant{v}
		each = append(each, one)
	}
	return each
}

// withDash turns the lines of a mapping into those of a list's element: the
// dash stands before its first key, and the comment on that key above it.
func withDash(lines, indent string) string {
	in := indent + "    "
	out := strings.Split(strings.TrimPrefix(lines, "\n"), "\n")
	for i, line := range out {
		if rest, ok := strings.CutPrefix(line, in); ok && !strings.HasPrefix(rest, "#") {
			out[i] = indent + "  - " + rest
			break
		}
		out[i] = strings.Replace(line, in, indent+"  ", 1)
	}
	return strings.Join(out, "\n")
}

// commentedOut makes comments of all lines: an element that may stand in the
// place of another, not beside it.
func commentedOut(lines string) string {
	out := strings.Split(lines, "\n")
	for i, line := range out {
		if key := strings.TrimLeft(line, " "); key != "" && key[0] != '#' {
			out[i] = line[:len(line)-len(key)] + "# " + key
		}
	}
	return strings.Join(out, "\n")
}

// comment writes prose in lines of a readable width.
func comment(b *bytes.Buffer, indent, prose string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(prose) {
		if len(line)+1+len(word) > exampleWidth {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// remarks says what may be written, where the explanation does not.
func remarks(f field) string {
	switch {
	case len(f.choices) > 1 && f.bounds == "":
		return " One of " + strings.Join(f.choices, ", ") + "."
	case f.bounds != "":
		return " " + strings.ToUpper(f.bounds[:1]) + f.bounds[1:] + "."
	}
	return ""
}

// exampleValue returns what stands behind the key in the example, and whether
// it may stand there: an optional field without default or sample may not.
func exampleValue(f field) (string, bool) {
	v := f.def
	if v == "" {
		v = f.sample
	}
	switch {
	case v == "" && f.secret && f.required:
		v = placeholder
	case v == "" && f.required:
		v = "sample-" + strings.ReplaceAll(f.key, "_", "-")
	case v == "":
		if f.list {
			return "[]", false
		}
		return `""`, false
	}
	if !f.list {
		return scalarText(v, f.kind), true
	}
	var elements []string
	for _, e := range elementsOf(v, true) {
		elements = append(elements, scalarText(e, f.kind))
	}
	return "[" + strings.Join(elements, ", ") + "]", true
}

var plainScalar = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*$`)

// scalarText writes a value as YAML; texts that could be read as something
// else stand in quotes.
func scalarText(v string, k kind) string {
	if k != kindText || plainScalar.MatchString(v) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(v)) {
		return v
	}
	return jsonText(v)
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("gateway: " + err.Error()) // strings and maps of them always marshal
	}
	return string(b)
}

// printSchema returns the JSON Schema of the file, for editors and for charts.
// It cannot know the environment, so it asks for keys that a variable may give.
func printSchema() []byte {
	s := schemaOf(new(Config).section())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Configuration of Paythread"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("gateway: " + err.Error()) // maps of strings, numbers and booleans always marshal
	}
	return append(b, '\n')
}

// schemaOf describes one mapping. Fields that depend on a choice stand behind
// an "if" on it, which is why unevaluatedProperties closes such a mapping.
func schemaOf(s section) map[string]any {
	out := map[string]any{"type": "object"}
	if !needsSomething(s) {
		out["type"] = []string{"object", "null"} // a heading with nothing below it
	}
	addProperties(out, s.fields)
	if s.by == "" {
		out["additionalProperties"] = false
		return out
	}
	var cases []any
	for _, v := range s.variants {
		then := map[string]any{}
		addProperties(then, v.fields)
		cases = append(cases, map[string]any{
			"if":   map[string]any{"properties": map[string]any{s.by: map[string]any{"const": v.name}}, "required": []string{s.by}},
			"then": then,
		})
	}
	rules, _ := out["allOf"].([]any) // absent where no secret is among the fields
	out["allOf"] = append(rules, cases...)
	out["unevaluatedProperties"] = false
	return out
}

func addProperties(out map[string]any, fields []field) {
	properties, required, rules := map[string]any{}, []string{}, []any{}
	for _, f := range fields {
		p := schemaOfField(f)
		p["description"] = f.doc
		properties[f.key] = p
		switch {
		case f.secret:
			name := f.key + fileSuffix
			properties[name] = map[string]any{"type": []string{"string", "null"}, "description": "File that holds " + f.key + ", in its place."}
			rules = append(rules, map[string]any{"not": given(f.key, name)})
			if f.required {
				rules = append(rules, map[string]any{"anyOf": []any{given(f.key), given(name)}})
			}
		case f.required || f.kind == kindSection && needsSomething(f.section):
			required = append(required, f.key)
		}
	}
	out["properties"] = properties
	if len(required) > 0 {
		out["required"] = required
	}
	if len(rules) > 0 {
		out["allOf"] = rules
	}
}

// given asks for keys with a value. It asks for a mapping as well, because
// "required" and "properties" say nothing of what is none.
func given(keys ...string) map[string]any {
	properties := map[string]any{}
	for _, key := range keys {
		properties[key] = map[string]any{"not": map[string]any{"enum": []any{"", nil}}}
	}
	return map[string]any{"type": "object", "required": keys, "properties": properties}
}

func needsSomething(s section) bool {
	return slices.ContainsFunc(s.fields, func(f field) bool { return f.required })
}

func schemaOfField(f field) map[string]any {
	switch f.kind {
	case kindSection:
		return schemaOf(f.section)
	case kindItems:
		out := map[string]any{"type": []string{"array", "null"}, "items": schemaOf(f.add())}
		if f.required {
			out["type"], out["minItems"] = "array", 1
		}
		return out
	}
	one := schemaOfScalar(f)
	if f.list {
		out := map[string]any{"type": []string{"array", "null"}, "items": one}
		if f.def != "" {
			out["default"] = elementsOf(f.def, true)
		}
		return out
	}
	switch words, chosen := one["enum"].([]any); {
	case f.required && !chosen && !f.secret: // of a secret it is asked with its file
		one["minLength"] = 1
	case !f.required:
		one["type"] = append(one["type"].([]string), "null")
		if chosen {
			one["enum"] = append(words, "", nil)
		}
	}
	if f.def != "" {
		one["default"] = json.RawMessage(f.def)
		if f.kind == kindText || f.kind == kindDuration {
			one["default"] = f.def
		}
	}
	return one
}

// schemaOfScalar takes what the loader takes, which reads a value as it is
// written: a number in quotes is one, and a text may look like a number.
func schemaOfScalar(f field) map[string]any {
	switch f.kind {
	case kindInteger:
		return map[string]any{"type": []string{"integer", "string"}, "minimum": *f.least, "maximum": *f.most, "pattern": `^([+-]?[0-9]+)?$`}
	case kindBoolean:
		return map[string]any{"type": []string{"boolean", "string"}, "enum": []any{true, false, "true", "false"}}
	case kindDuration: // 0 needs no unit
		return map[string]any{"type": []string{"string", "integer"}, "minimum": 0, "maximum": 0, "pattern": durationPattern}
	}
	if len(f.choices) > 0 {
		words := []any{}
		for _, w := range f.choices {
			words = append(words, w)
		}
		return map[string]any{"type": []string{"string"}, "enum": words}
	}
	return map[string]any{"type": []string{"string", "number", "boolean"}}
}

// durationPattern is what parseDuration reads, without the bounds.
const durationPattern = `^(0|([0-9]+d)?(([0-9]+\.?[0-9]*|\.[0-9]+)(h|m|s|ms|us|µs|μs|ns))*)$`

// configurationIntro stands before the tables of docs/configuration.md.
const configurationIntro = `# Configuration

<!-- Printed from the code. Do not edit: go test ./gateway -run TestGenerated -update -->

Paythread reads one YAML file, ` + "`paythread serve --config FILE`" + `, and the environment: at start, on SIGHUP, and when the
file or a file that it names has changed (see [operate.md](operate.md#change-the-configuration)). What stands under
*change* below says when a new value counts: ` + "`reload`" + `, from then on, without an interruption; ` + "`restart`" + `, from the next
start on, and until then the log names the key. Variables are read at start.

Everything that is wrong is reported together, each with its line, its key, and what would be right; nothing starts until
all of it is right. ` + "`paythread config check --config FILE`" + ` does the same and starts nothing.
` + "`paythread config example`" + ` prints a file to begin with, ` + "`paythread config schema`" + ` a JSON Schema for editors,
which cannot see variables and asks for what they give.

## How values are written

- **Durations** are numbers with units: ` + "`30s`, `15m`, `24h`, `8d`, `1d12h`" + `. A day is 24 hours.
- **Secrets** (marked so below) stand in the file as ` + "`key: value`" + `, or in a file of their own as ` + "`key_file: path`" + `, never
  both. Newlines at the end of such a file are not part of the secret; a byte order mark at its beginning is refused. No
  secret has a default, and none is ever logged. One that begins with a sign of YAML's own (! & * @ % and others) stands in
  quotes.
- **Paths** in the file start at the folder of the file; paths in variables start where the process was started.
- A file may be a pipe, such as that of a shell's ` + "`<(command)`" + `. It is read once, at start; the files that it names are followed.
- Keys that do not exist, keys that stand twice, merge keys (` + "`<<`" + `) and a second document are refused. A key without
  a value counts as absent.
- In production, addresses of companies are https, but for those in a private network.
- Secrets that begin with ` + "`" + placeholder + "`" + `, as those of the printed example do, are refused for a merchant in production.

## Environment

Each value can come from a variable as well: ` + "`PAYTHREAD_`" + ` and the path of the key in capitals, its parts joined by ` + "`_`" + `.
An element of a list is named by its ` + "`id` (an API key: its `name`)" + `, with ` + "`-` written `_`" + `:

| key | variable |
| --- | --- |
| ` + "`redis.url`" + ` | ` + "`PAYTHREAD_REDIS_URL`" + `, or ` + "`PAYTHREAD_REDIS_URL_FILE`" + ` |
| ` + "`timings.ask_after`" + ` | ` + "`PAYTHREAD_TIMINGS_ASK_AFTER=5m,10m`" + ` (a list of values, separated by commas) |
| ` + "`public_url` of merchant `acme`" + ` | ` + "`PAYTHREAD_MERCHANTS_ACME_PUBLIC_URL`" + ` |
| ` + "`app_secret` of its sender `acme-whatsapp`" + ` | ` + "`PAYTHREAD_MERCHANTS_ACME_SENDERS_ACME_WHATSAPP_APP_SECRET`" + ` |
| ` + "`secret` of its API key `oms`" + ` | ` + "`PAYTHREAD_MERCHANTS_ACME_API_KEYS_OMS_SECRET`" + ` |

A variable goes before the file, the file before the default. For a secret, the variable or its ` + "`_FILE`" + ` replaces both
spellings in the file. An empty variable counts as absent. Variables cannot add merchants, senders or API keys: the element
must stand in the file, with at least its ` + "`id` or `name`" + `. A variable that begins with ` + "`PAYTHREAD_`" + ` and names nothing is
refused, because it is most often misspelt; the ones that Kubernetes makes for a Service called paythread
(` + "`PAYTHREAD_SERVICE_HOST`, `PAYTHREAD_PORT_8080_TCP`" + `, ...) are ignored. Where the ids of two merchants make one variable
mean two keys, it is refused, and the two values belong in the file.

## Keys

`

// printReference returns docs/configuration.md.
func printReference() []byte {
	var b bytes.Buffer
	b.WriteString(configurationIntro)
	referenceTable(&b, "", "At the top", "", new(Config).section())
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// referenceTable writes the scalars of a mapping as a table, then what it
// contains as tables of their own.
func referenceTable(b *bytes.Buffer, path, title, doc string, s section) {
	fmt.Fprintf(b, "### %s\n\n", title)
	if doc != "" {
		b.WriteString(doc + "\n\n")
	}
	referenceRows(b, s.fields)
	for _, v := range s.variants {
		fmt.Fprintf(b, "#### With `%s: %s`\n\n", s.by, v.name)
		referenceRows(b, v.fields)
	}
	for _, f := range s.fields {
		switch f.kind {
		case kindSection:
			referenceTable(b, join(path, f.key), "`"+join(path, f.key)+"`", f.doc, f.section)
		case kindItems:
			p := join(path, f.key) + "[]"
			referenceTable(b, p, "`"+p+"`", f.doc, f.add())
		}
	}
}

func referenceRows(b *bytes.Buffer, fields []field) {
	if !slices.ContainsFunc(fields, isScalar) {
		return
	}
	b.WriteString("| key | value | default | change | what it is |\n| --- | --- | --- | --- | --- |\n")
	for _, f := range fields {
		if isScalar(f) {
			fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", f.key, referenceKind(f), referenceDefault(f), changeOf(f), strings.ReplaceAll(f.doc, "|", `\|`))
		}
	}
	b.WriteString("\n")
}

// changeOf says when a value that was changed counts.
func changeOf(f field) string {
	if f.restart {
		return "restart"
	}
	return "reload"
}

func isScalar(f field) bool { return f.kind != kindSection && f.kind != kindItems }

func referenceKind(f field) string {
	var s string
	switch {
	case f.secret:
		s = "secret"
	case len(f.choices) > 0:
		s = "`" + strings.Join(f.choices, "`, `") + "`"
	default:
		s = string(f.kind)
	}
	if f.list {
		s = "list of " + s + "s"
	}
	if f.bounds != "" {
		s += " " + f.bounds
	}
	return s
}

func referenceDefault(f field) string {
	switch {
	case f.required:
		return "required"
	case f.def == "":
		return ""
	case f.list:
		return "`[" + f.def + "]`"
	}
	return "`" + f.def + "`"
}
