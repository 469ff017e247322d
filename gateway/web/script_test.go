package web_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"paythread/gateway/web"
)

func TestScriptIsSmallAndWhole(t *testing.T) {
	t.Parallel()
	body, etag := web.Script()
	if len(body) >= 60_000 {
		t.Errorf("the script has %d bytes, want less than 60000", len(body))
	}
	for _, part := range []string{"customElements.define('paythread-panel'", "const TEXT={", "const STYLE = ", "prefers-reduced-motion"} {
		if !bytes.Contains(body, []byte(part)) {
			t.Errorf("the script lacks %q", part)
		}
	}
	if !regexp.MustCompile(`^"[\w-]{16}"$`).MatchString(etag) {
		t.Errorf("got entity tag %s, want sixteen characters in quotes", etag)
	}
}

func TestScriptKeepsItsPromises(t *testing.T) {
	t.Parallel()
	body, _ := web.Script()
	for _, forbidden := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://", "localStorage", "confirm(", "alert("} {
		if at := bytes.Index(body, []byte(forbidden)); at >= 0 && !bytes.Contains(body[max(0, at-1):at], []byte("#")) {
			t.Errorf("the script has %q: %s", forbidden, body[max(0, at-40):at+40])
		}
	}
}

// Sources lose comments and indentation by line, so no string may run over a
// line's end and no comment may open on one line and close on another.
func TestSourcesCanBeJoinedByLine(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"panel.js", "text.js", "panel.css"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(source), "\n") {
			if strings.Count(line, "`")%2 != 0 {
				t.Errorf("%s:%d: a template string runs over the line's end", name, i+1)
			}
			if code, _, found := strings.Cut(line, " // "); found && (strings.Count(code, "'")%2 != 0 || strings.Count(code, "`")%2 != 0) {
				t.Errorf("%s:%d: a string holds the beginning of a comment", name, i+1)
			}
			if strings.Count(line, "/*") != strings.Count(line, "*/") {
				t.Errorf("%s:%d: a comment runs over the line's end", name, i+1)
			}
		}
	}
}
