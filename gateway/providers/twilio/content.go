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
	{"content_payment", conversations.PurposePayment, true, linkedVariables},
	{"content_receipt", conversations.PurposeReceipt, true, linkedVariables},
	{"content_cancelled", conversations.PurposeCancelled, false, func(v conversations.Parameters) []string {
		return []string{v.Merchant, v.Order}
	}},
	{"content_refund", conversations.PurposeRefund, true, linkedVariables},
}

func linkedVariables(v conversations.Parameters) []string {
	return []string{v.Merchant, v.Amount, v.Order, url.PathEscape(v.LinkCode)}
}

var contentForm = regexp.MustCompile(`^HX[0-9a-f]{32}$`)

// readContents reads the settings that name Content templates. Twilio keeps
// each language under a SID of its own.
func readContents(s providers.Settings) (map[conversations.Purpose]providers.Translations, error) {
	byDefault := s.Values["content_language"]
	if !providers.IsLanguage(byDefault) {
		return nil, errors.New(`content_language must be a language code such as "en" or "pt_BR"`)
	}
	all := map[conversations.Purpose]providers.Translations{}
	var problems []error
	for _, c := range contentSettings {
		v := s.Values[c.name]
		if v == "" {
			continue
		}
		list, err := providers.ParseTranslations(v, byDefault, contentForm,
			"must be HX and 32 hexadecimal digits, or several with the language before each, en=HX0a, de=HX1b and so on", "content_language")
		if err != nil {
			problems = append(problems, fmt.Errorf("%s %w", c.name, err))
		}
		all[c.purpose] = list
	}
	return all, errors.Join(problems...)
}

// Template returns the Content template that o would be sent with, by its SID,
// and its language as the settings spell it.
func (p *Provider) Template(o conversations.Outbound) (name, language string) {
	if !o.Template {
		return "", ""
	}
	t, _ := p.contents[o.Purpose].For(o.Parameters.Locale)
	return t.Template, t.Language
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
