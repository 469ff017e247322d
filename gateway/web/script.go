// Package web holds what Paythread puts into other people's pages: the panel
// that a merchant's agents see inside their order-management system.
//
// The panel is written in three files, its words (text.js), its looks
// (panel.css) and its behaviour (panel.js), and served as one script. Nothing
// is compiled or renamed: Script only joins the three and leaves out comments,
// indentation and the spaces around punctuation.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
)

//go:embed panel.js text.js panel.css
var sources embed.FS

// Script returns the script that defines <paythread-panel>, and its strong
// entity tag, quotes included. Callers share the bytes and must not change
// them.
func Script() (body []byte, etag string) {
	s := built()
	return s.body, s.etag
}

type script struct {
	body []byte
	etag string
}

var built = sync.OnceValue(func() script {
	style, err := json.Marshal(tight.Replace(joined("panel.css")))
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	var b bytes.Buffer
	b.WriteString("// Paythread panel. SPDX-License-Identifier: Apache-2.0\n")
	// A page may include the script twice; the element can be defined once.
	b.WriteString("(() => {\n'use strict';\nif (customElements.get('paythread-panel')) return;\n")
	b.WriteString("const STYLE = " + string(style) + ";\n")
	for _, name := range []string{"text.js", "panel.js"} {
		for line := range strings.Lines(joined(name)) {
			b.WriteString(tightLine(line))
		}
	}
	b.WriteString("})();\n")
	sum := sha256.Sum256(b.Bytes())
	return script{body: b.Bytes(), etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
})

// tight leaves out the spaces that a style sheet is easier to read with. None
// of its strings holds one of these pairs.
var tight = strings.NewReplacer(": ", ":", "; ", ";", ", ", ",", " {", "{", "{ ", "{", " }", "}", ";}", "}", "\n", "")

// joined returns a source without its indentation, empty lines and comments. No
// source has a string that runs over several lines or holds the beginning of a
// comment, or a block comment that runs on, and a test holds them to it.
func joined(name string) string {
	source, err := sources.ReadFile(name)
	if err != nil {
		panic(err) // the compiler put it there
	}
	var b strings.Builder
	for line := range strings.Lines(string(source)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " // ")
		if line == "" || strings.HasPrefix(line, "//") || strings.HasPrefix(line, "/*") {
			continue
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// tightLine leaves out a line's spaces beside punctuation, where JavaScript
// needs none. Strings, templates and regular expressions stay as they are; so
// do the spaces around + and -, which could run together into others, and
// around /, which could begin an expression.
func tightLine(line string) string {
	const punctuation = "{}()[],;:=<>?&|!*%'\"`\n"
	b := make([]byte, 0, len(line))
	last := func() byte {
		if len(b) == 0 {
			return '\n'
		}
		return b[len(b)-1]
	}
	for i := 0; i < len(line); {
		end := i + 1
		switch c := line[i]; {
		case strings.IndexByte("'\"`", c) >= 0:
			end = literalEnd(line, i)
		case c == '/' && strings.IndexByte("(,=:[!&|?{};>\n", last()) >= 0:
			end = expressionEnd(line, i)
		case c == ' ' && (strings.IndexByte(punctuation, last()) >= 0 || strings.IndexByte(punctuation, line[end]) >= 0):
			i = end
			continue
		}
		b = append(b, line[i:end]...)
		i = end
	}
	return string(b)
}

// literalEnd returns where the string or template that begins at i has ended. A
// template may hold code, and that more of them.
func literalEnd(line string, i int) int {
	quote, depth := line[i], 0
	for i++; line[i] != quote; i++ {
		switch {
		case line[i] == '\\':
			i++
		case quote == '`' && line[i] == '$' && line[i+1] == '{':
			for i, depth = i+2, 1; depth > 0; i++ {
				switch line[i] {
				case '{':
					depth++
				case '}':
					depth--
				case '\'', '"', '`':
					i = literalEnd(line, i) - 1
				}
			}
			i--
		}
	}
	return i + 1
}

// expressionEnd returns where the regular expression that begins at i has
// ended. A slash in a class does not end it.
func expressionEnd(line string, i int) int {
	class := false
	for i++; class || line[i] != '/'; i++ {
		switch line[i] {
		case '\\':
			i++
		case '[':
			class = true
		case ']':
			class = false
		}
	}
	return i + 1
}
