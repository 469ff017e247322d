package meta

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The states of a template. What is not sendable does not exist for a send.
const (
	templateApproved = "APPROVED"
	templatePaused   = "PAUSED"
	templateDisabled = "DISABLED"
	templateFlagged  = "FLAGGED"
)

var sendable = []string{templateApproved, templateFlagged, templatePaused, templateDisabled}

type templateContent struct {
	Name     string `json:"name"`
	Language struct {
		Code   string `json:"code"`
		Policy string `json:"policy"`
	} `json:"language"`
	Components []component `json:"components"`
}

type component struct {
	Type       string      `json:"type"`
	SubType    string      `json:"sub_type"`
	Index      json.Number `json:"index"` // Meta takes "0" and 0
	Parameters []parameter `json:"parameters"`
}

type parameter struct {
	Type    string `json:"type"`
	Text    string `json:"text"`
	Payload string `json:"payload"`
}

var variable = regexp.MustCompile(`\{\{\d+\}\}`)

// setTemplate finds the translation that a send names, exactly, and fills it.
func (s *Simulator) setTemplate(m *message, content *templateContent) *graphError {
	switch {
	case content == nil:
		return errMissing.with("template is missing")
	case content.Name == "":
		return errMissing.with("template.name is missing")
	case content.Language.Code == "":
		return errMissing.with("template.language.code is missing")
	case content.Language.Policy != "" && content.Language.Policy != "deterministic":
		return errValue.with("template.language.policy must be deterministic")
	}
	t, found := s.findTemplate(m.number.WABAID, content.Name, content.Language.Code)
	switch {
	case !found, !slices.Contains(sendable, t.Status):
		return errNoTemplate.with("template name (%s) does not exist in %s", content.Name, content.Language.Code)
	case t.Status == templatePaused:
		return errTemplatePaused
	case t.Status == templateDisabled:
		return errTemplateDisabled
	case m.byUserID && t.Category == "AUTHENTICATION":
		return errUserIDHere.with("One-tap, zero-tap and copy-code authentication templates need a phone number.")
	}
	m.Template = true
	m.template, m.held = t.key(), t.Hold
	m.category = strings.ToLower(t.Category)
	m.ttl = t.TTL
	return m.fill(&t, content.Components)
}

// findTemplate returns a copy of a translation as it is now.
func (s *Simulator) findTemplate(waba, name, language string) (Template, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.templateAt(templateKey{waba, name, language}); t != nil {
		return *t, true
	}
	return Template{}, false
}

// templateAt is findTemplate with the lock held, and not a copy.
func (s *Simulator) templateAt(key templateKey) *Template {
	for _, t := range s.templates {
		if t.key() == key {
			return t
		}
	}
	return nil
}

func (t *Template) key() templateKey { return templateKey{t.WABAID, t.Name, t.Language} }

// fill puts the parameters of a send where the template has its variables.
func (m *message) fill(t *Template, components []component) *graphError {
	var body []string
	suffix, payloads := "", map[int]string{}
	for _, c := range components {
		texts, failure := c.texts()
		if failure != nil {
			return failure
		}
		switch c.Type {
		case "body":
			body = texts
		case "button":
			index, err := strconv.Atoi(c.Index.String())
			if err != nil || len(c.Parameters) != 1 {
				return errValue.with("a button component needs an index and one parameter")
			}
			if failure := m.fillButton(t, c, index, &suffix, payloads); failure != nil {
				return failure
			}
		default:
			return errParamFormat.with("the template has no component of type %q that takes parameters", c.Type)
		}
	}
	if want := variables(t.Body); len(body) != want {
		return errParamCount.with("body: number of localizable_params (%d) does not match the expected number of params (%d)", len(body), want)
	}
	m.Text = substitute(t.Body, body)
	if utf8.RuneCountInString(m.Text) > longestTemplate {
		return errTemplateLong.with("the body would have more than %d characters", longestTemplate)
	}
	if b := t.URLButton; b != nil {
		if strings.HasSuffix(b.URL, "{{1}}") && suffix == "" {
			return errMissing.with("buttons: Button at index 0 of type Url requires a parameter")
		}
		link := strings.TrimSuffix(b.URL, "{{1}}") + suffix
		if len(link) > longestURL {
			return errTemplateLong.with("the button's URL would have more than %d characters", longestURL)
		}
		m.Buttons = append(m.Buttons, Button{Title: b.Label, URL: link})
	}
	for i, title := range t.QuickReplies {
		// A reply without a payload of its own sends its text back.
		m.Buttons = append(m.Buttons, Button{ID: cmp.Or(payloads[i], title), Title: title})
	}
	return nil
}

// fillButton takes the parameter of one button. The link, when there is one,
// comes first, so the quick replies are counted behind it.
func (m *message) fillButton(t *Template, c component, index int, suffix *string, payloads map[int]string) *graphError {
	links := 0
	if t.URLButton != nil {
		links = 1
	}
	p := c.Parameters[0]
	switch {
	case c.SubType == "url" && index == 0 && links == 1 && strings.HasSuffix(t.URLButton.URL, "{{1}}"):
		if p.Type != "text" || p.Text == "" {
			return errParamFormat.with("the parameter of a URL button is a text")
		}
		*suffix = p.Text
	case c.SubType == "quick_reply" && index >= links && index < links+len(t.QuickReplies):
		if p.Type != "payload" || p.Payload == "" || len(p.Payload) > longestButtonID {
			return errParamFormat.with("the parameter of a quick reply is a payload of at most %d characters", longestButtonID)
		}
		payloads[index-links] = p.Payload
	default:
		return errParamCount.with("buttons: the template has no button of type %q with a variable at index %d", c.SubType, index)
	}
	return nil
}

// texts returns the texts of a body component's parameters.
func (c component) texts() ([]string, *graphError) {
	if c.Type != "body" {
		return nil, nil
	}
	var texts []string
	for i, p := range c.Parameters {
		switch {
		case p.Type != "text":
			return nil, errParamFormat.with("body: parameter %d must be of type text", i+1)
		case p.Text == "":
			return nil, errMissing.with("body: parameter %d has no text", i+1)
		case strings.ContainsAny(p.Text, "\n\t") || strings.Contains(p.Text, "     "):
			return nil, errTemplateParam.with("Param text cannot have new-line/tab characters or more than 4 consecutive spaces")
		}
		texts = append(texts, p.Text)
	}
	return texts, nil
}

// variables counts the different variables of a template's text.
func variables(text string) int {
	seen := map[string]bool{}
	for _, v := range variable.FindAllString(text, -1) {
		seen[v] = true
	}
	return len(seen)
}

func substitute(text string, values []string) string {
	return variable.ReplaceAllStringFunc(text, func(v string) string {
		i, err := strconv.Atoi(strings.Trim(v, "{}"))
		if err != nil || i < 1 || i > len(values) {
			return v
		}
		return values[i-1]
	})
}
