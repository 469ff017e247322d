// Package web holds what Paythread puts into other people's pages: the panel
// that a merchant's agents see inside their order-management system.
//
// The panel is written in three files, its words (text.js), its looks
// (panel.css) and its behaviour (panel.js), and served as one script. Nothing
// is compiled: Script only joins the three and leaves out comments and
// indentation.
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
	b.WriteString(joined("text.js"))
	b.WriteString(joined("panel.js"))
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
