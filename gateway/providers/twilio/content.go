package twilio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// contentSetting is a setting that names the templates of one purpose.
type contentSetting struct {
	name      string
	purpose   conversations.Purpose
	linked    bool                                    // a link belongs to it
	variables func(conversations.Parameters) []string // {{1}}, {{2}} and so on
}

// contentSettings are the purposes that WhatsApp has templates for. The link's
// code is the end of the button's address.
var contentSettings = []contentSetting{
	{"content_payment", conversations.PurposePayment, true, askingVariables},
	{"content_receipt", conversations.PurposeReceipt, true, askingVariables},
	{"content_cancelled", conversations.PurposeCancelled, false, func(v conversations.Parameters) []string {
		return []string{v.Merchant, v.Order}
	}},
}

func askingVariables(v conversations.Parameters) []string {
	return []string{v.Merchant, v.Amount, v.Order, url.PathEscape(v.LinkCode)}
}

// contents are the Content templates of one purpose, the default language's
// first.
type contents []content

// content is one Content template. Twilio keeps each language under a SID of
// its own.
type content struct {
	language string // as the setting spells it
	sid      string
}

var (
	contentForm  = regexp.MustCompile(`^HX[0-9a-f]{32}$`)
	languageForm = regexp.MustCompile(`^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*$`)
)

// readContents reads the settings that name Content templates.
func readContents(s providers.Settings) (map[conversations.Purpose]contents, error) {
	byDefault := s.Values["content_language"]
	if !languageForm.MatchString(byDefault) {
		return nil, errors.New(`content_language must be a language code such as "en" or "pt_BR"`)
	}
	all := map[conversations.Purpose]contents{}
	var problems []error
	for _, c := range contentSettings {
		v := s.Values[c.name]
		if v == "" {
			continue
		}
		list, err := parseContents(v, byDefault)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s %w", c.name, err))
		}
		all[c.purpose] = list
	}
	return all, errors.Join(problems...)
}

// parseContents reads "HX..." or "en=HX..., de=HX...".
func parseContents(v, byDefault string) (contents, error) {
	if contentForm.MatchString(v) {
		return contents{{byDefault, v}}, nil
	}
	var list contents
	first := -1
	for part := range strings.SplitSeq(v, ",") {
		language, sid, _ := strings.Cut(part, "=")
		c := content{strings.TrimSpace(language), strings.TrimSpace(sid)}
		switch {
		case !languageForm.MatchString(c.language) || !contentForm.MatchString(c.sid):
			return nil, errors.New("must be HX and 32 hexadecimal digits, or several with the language before each, en=HX0a, de=HX1b and so on")
		case slices.ContainsFunc(list, func(other content) bool { return tag(other.language) == tag(c.language) }):
			return nil, fmt.Errorf("names two templates for %s", c.language)
		case tag(c.language) == tag(byDefault):
			first = len(list)
		}
		list = append(list, c)
	}
	if first < 0 {
		return nil, fmt.Errorf("names no template for %s, the language of content_language", byDefault)
	}
	list[0], list[first] = list[first], list[0]
	return list, nil
}

// tag makes two spellings of a language one: de-AT is de_AT.
func tag(language string) string {
	return strings.ToLower(strings.ReplaceAll(language, "_", "-"))
}

// of returns the template for a locale: its own, its base language's, or the
// default's.
func (cs contents) of(locale string) content {
	wanted := tag(locale)
	base, _, _ := strings.Cut(wanted, "-")
	for _, want := range []string{wanted, base} {
		if i := slices.IndexFunc(cs, func(c content) bool { return tag(c.language) == want }); i >= 0 {
			return cs[i]
		}
	}
	return cs[0]
}

// Template returns the Content template that o would be sent with, by its SID,
// and its language as the settings spell it.
func (p *Provider) Template(o conversations.Outbound) (name, language string) {
	list := p.contents[o.Purpose]
	if !o.Template || len(list) == 0 {
		return "", ""
	}
	c := list.of(o.Parameters.Locale)
	return c.sid, c.language
}

// fillContent puts the template of the message's purpose into the form.
func (p *Provider) fillContent(form url.Values, o conversations.Outbound) error {
	sid, _ := p.Template(o)
	if sid == "" {
		return providers.Refuse(conversations.FailureTemplate, "no template is set for a message of purpose "+providers.Word(string(o.Purpose)))
	}
	c := contentSettings[slices.IndexFunc(contentSettings, func(c contentSetting) bool { return c.purpose == o.Purpose })]
	if c.linked && o.Parameters.LinkCode == "" {
		return providers.Refuse(conversations.FailureTemplate, "the message has no link")
	}
	form.Set("ContentSid", sid)
	form.Set("ContentVariables", contentVariables(c.variables(o.Parameters)))
	return nil
}

// contentVariables writes values as the JSON text that Twilio takes them in.
// WhatsApp takes one line each, without runs of spaces, and never an empty one.
func contentVariables(values []string) string {
	variables := make(map[string]string, len(values))
	for i, v := range values {
		v = providers.Text(strings.Join(strings.Fields(v), " "), maxVariable)
		if v == "" {
			v = "-"
		}
		variables[strconv.Itoa(i+1)] = v
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(variables) // strings can always be written, and a buffer takes them
	return strings.TrimSuffix(b.String(), "\n")
}
