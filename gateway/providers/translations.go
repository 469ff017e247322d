package providers

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Translation is a template in one language, for providers that keep each
// language under a name of its own.
type Translation struct {
	Language string // as the setting spells it
	Template string // the provider's name of it
}

// Translations are the templates of one purpose, the default language's first.
type Translations []Translation

var languageForm = regexp.MustCompile(`^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*$`)

// IsLanguage tells whether s has the form of a language code such as "en" or
// "pt_BR".
func IsLanguage(s string) bool { return languageForm.MatchString(s) }

// ParseTranslations reads a setting of the form "name", for the language
// byDefault, or "en=name, de=name_de". form is that of a name, wanted the end of
// the error where it is not met, and defaultSetting the setting that byDefault
// comes from. An empty setting has no translations.
func ParseTranslations(v, byDefault string, form *regexp.Regexp, wanted, defaultSetting string) (Translations, error) {
	switch {
	case v == "":
		return nil, nil
	case form.MatchString(v):
		return Translations{{byDefault, v}}, nil
	}
	var list Translations
	first := -1
	for part := range strings.SplitSeq(v, ",") {
		language, name, _ := strings.Cut(part, "=")
		t := Translation{strings.TrimSpace(language), strings.TrimSpace(name)}
		switch {
		case !IsLanguage(t.Language) || !form.MatchString(t.Template):
			return nil, errors.New(wanted)
		case slices.ContainsFunc(list, func(other Translation) bool { return SameLanguage(other.Language, t.Language) }):
			return nil, fmt.Errorf("names two templates for %s", t.Language)
		case SameLanguage(t.Language, byDefault):
			first = len(list)
		}
		list = append(list, t)
	}
	if first < 0 {
		return nil, fmt.Errorf("names no template for %s, the language of %s", byDefault, defaultSetting)
	}
	list[0], list[first] = list[first], list[0]
	return list, nil
}

// For returns the translation for a locale: its own, its base language's, or
// the default's. It is false where there is none at all.
func (ts Translations) For(locale string) (Translation, bool) {
	if len(ts) == 0 {
		return Translation{}, false
	}
	base, _, _ := strings.Cut(languageTag(locale), "-")
	for _, want := range []string{locale, base} {
		if i := slices.IndexFunc(ts, func(t Translation) bool { return SameLanguage(t.Language, want) }); i >= 0 {
			return ts[i], true
		}
	}
	return ts[0], true
}

// SameLanguage tells whether two codes name one language: de-AT is de_at.
func SameLanguage(a, b string) bool { return languageTag(a) == languageTag(b) }

func languageTag(language string) string {
	return strings.ToLower(strings.ReplaceAll(language, "_", "-"))
}
