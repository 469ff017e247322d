package clickatell

import (
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

// templateSettings are the settings that name a template, by its purpose.
var templateSettings = map[conversations.Purpose]string{
	conversations.PurposePayment:   "template_payment",
	conversations.PurposeReceipt:   "template_receipt",
	conversations.PurposeCancelled: "template_cancelled",
}

// named is the name of a template in one language: the One API takes no
// language beside the name, so each language is a template of its own.
type named struct{ language, name string }

var (
	templateForm = regexp.MustCompile(`^[A-Za-z0-9_]{1,512}$`)
	languageForm = regexp.MustCompile(`^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*$`)
)

// readTemplates reads the settings that name templates.
func readTemplates(s providers.Settings) (map[conversations.Purpose][]named, error) {
	byDefault := s.Values["template_language"]
	if !languageForm.MatchString(byDefault) {
		return nil, errors.New(`template_language must be a language code such as "en" or "pt_BR"`)
	}
	all := map[conversations.Purpose][]named{}
	var problems []error
	for purpose, setting := range templateSettings {
		list, err := parseTemplates(s.Values[setting], byDefault)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s %w", setting, err))
		}
		all[purpose] = list
	}
	return all, errors.Join(problems...)
}

// parseTemplates reads "name" or "en=name, de=name_de" into a list with the
// default language's first.
func parseTemplates(v, byDefault string) ([]named, error) {
	switch {
	case v == "":
		return nil, nil
	case templateForm.MatchString(v):
		return []named{{byDefault, v}}, nil
	}
	var list []named
	first := -1
	for part := range strings.SplitSeq(v, ",") {
		language, name, _ := strings.Cut(part, "=")
		n := named{strings.TrimSpace(language), strings.TrimSpace(name)}
		switch {
		case !languageForm.MatchString(n.language) || !templateForm.MatchString(n.name):
			return nil, errors.New("must be a name of letters, digits and _, or several with the language before each: en=name, de=name_de")
		case slices.ContainsFunc(list, func(other named) bool { return tag(other.language) == tag(n.language) }):
			return nil, fmt.Errorf("names two templates for %s", n.language)
		case tag(n.language) == tag(byDefault):
			first = len(list)
		}
		list = append(list, n)
	}
	if first < 0 {
		return nil, fmt.Errorf("names no template for %s, the language of template_language", byDefault)
	}
	list[0], list[first] = list[first], list[0]
	return list, nil
}

// tag makes two spellings of a language one: de-AT is de_AT.
func tag(language string) string {
	return strings.ToLower(strings.ReplaceAll(language, "_", "-"))
}

// Template names the template that o would be sent with: the one of the
// customer's language, of its base language, or of the default.
func (p *Provider) Template(o conversations.Outbound) (name, language string) {
	list := p.templates[o.Purpose]
	if p.channel != conversations.WhatsApp || !o.Template || len(list) == 0 {
		return "", ""
	}
	exact := tag(o.Parameters.Locale)
	base, _, _ := strings.Cut(exact, "-")
	for _, want := range []string{exact, base} {
		if i := slices.IndexFunc(list, func(n named) bool { return tag(n.language) == want }); i >= 0 {
			return list[i].name, list[i].language
		}
	}
	return list[0].name, list[0].language
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
