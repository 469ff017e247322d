package clickatell

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// templateSettings are the settings that name a template, by its purpose.
var templateSettings = map[conversations.Purpose]string{
	conversations.PurposePayment:   "template_payment",
	conversations.PurposeReceipt:   "template_receipt",
	conversations.PurposeCancelled: "template_cancelled",
	conversations.PurposeRefund:    "template_refund",
}

var templateForm = regexp.MustCompile(`^[A-Za-z0-9_]{1,512}$`)

// readTemplates reads the settings that name templates. The One API takes no
// language beside the name, so each language is a template of its own.
func readTemplates(s providers.Settings) (map[conversations.Purpose]providers.Translations, error) {
	byDefault := s.Values["template_language"]
	if !providers.IsLanguage(byDefault) {
		return nil, errors.New(`template_language must be a language code such as "en" or "pt_BR"`)
	}
	all := map[conversations.Purpose]providers.Translations{}
	var problems []error
	for purpose, setting := range templateSettings {
		list, err := providers.ParseTranslations(s.Values[setting], byDefault, templateForm,
			"must be a name of letters, digits and _, or several with the language before each: en=name, de=name_de", "template_language")
		if err != nil {
			problems = append(problems, fmt.Errorf("%s %w", setting, err))
		}
		all[purpose] = list
	}
	return all, errors.Join(problems...)
}

// Template names the template that o would be sent with: the one of the
// customer's language, of its base language, or of the default.
func (p *Provider) Template(o conversations.Outbound) (name, language string) {
	if p.channel != conversations.WhatsApp || !o.Template {
		return "", ""
	}
	t, _ := p.templates[o.Purpose].For(o.Parameters.Locale)
	return t.Template, t.Language
}

// template is a WhatsApp template and what stands for {{1}}, {{2}}, ... in it.
type template struct {
	Name       string            `json:"template"`
	Parameters map[string]string `json:"parameters"`
}

// template fills in the template of the message's purpose.
//
// Unverified: this is the form of Clickatell's page "One API: Send templated
// message" of April 2019, the only one that is public: an object "hsm" with
// the template's name and its variables by number. Later pages name the
// members template and parameters and do not show how they are nested. There
// is no language and nothing for buttons, so the link's code is one more
// variable, to stand behind PUBLIC_URL/p/ in the template.
func (p *Provider) template(o conversations.Outbound) (*template, error) {
	name, _ := p.Template(o)
	if name == "" {
		return nil, providers.Refuse(conversations.FailureTemplate, "no template is set for a message of purpose "+providers.Word(string(o.Purpose)))
	}
	v := o.Parameters
	if o.Purpose == conversations.PurposeCancelled {
		return &template{Name: name, Parameters: parameters(v.Merchant, v.Order)}, nil
	}
	if v.LinkCode == "" {
		return nil, providers.Refuse(conversations.FailureTemplate, "the message has no link")
	}
	return &template{Name: name, Parameters: parameters(v.Merchant, v.Amount, v.Order, url.PathEscape(v.LinkCode))}, nil
}

// parameters numbers values and makes them fit for a template: one line, no
// runs of spaces, and never empty, all of which WhatsApp refuses.
func parameters(values ...string) map[string]string {
	m := make(map[string]string, len(values))
	for i, v := range values {
		v = providers.Text(strings.Join(strings.Fields(v), " "), maxParameter)
		if v == "" {
			v = "-"
		}
		m[strconv.Itoa(i+1)] = v
	}
	return m
}
