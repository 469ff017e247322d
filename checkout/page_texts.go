package checkout

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

//go:embed web/texts.en.json
var englishTexts []byte

// pageLanguage is the one language that the texts come in so far.
const pageLanguage = "en"

// texts are the words of the pages by key. Keys that begin with js_ are given
// to the page's script.
type texts map[string]string

// parseTexts panics on texts that cannot be read: they are compiled in.
func parseTexts(raw []byte) texts {
	var t texts
	if err := json.Unmarshal(raw, &t); err != nil {
		panic("checkout: texts: " + err.Error())
	}
	return t
}

// text returns the words for a key. pairs are names and values for its
// placeholders: "merchant", "Acme" fills {merchant}. An unknown key is an
// error, so that a page with a hole is never sent.
func (t texts) text(key string, pairs ...any) (string, error) {
	s, ok := t[key]
	if !ok {
		return "", fmt.Errorf("no text %q", key)
	}
	replace := make([]string, 0, len(pairs))
	for i, p := range pairs {
		word := fmt.Sprint(p)
		if i%2 == 0 {
			word = "{" + word + "}"
		}
		replace = append(replace, word)
	}
	return strings.NewReplacer(replace...).Replace(s), nil
}

// forScript returns the texts that the page's script needs.
func (t texts) forScript() texts {
	out := texts{}
	for key, words := range t {
		if strings.HasPrefix(key, "js_") {
			out[key] = words
		}
	}
	return out
}
