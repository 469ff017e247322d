package meta

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

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
	t := s.findTemplate(m.number.WABAID, content.Name, content.Language.Code)
	if t == nil {
		return errNoTemplate.with("template name (%s) does not exist in %s", content.Name, content.Language.Code)
	}
	switch t.Status {
	case "PAUSED":
		return errTemplatePaused
	case "DISABLED":
		return errTemplateDisabled
	}
	m.Template = true
	m.category = strings.ToLower(t.Category)
	return m.fill(t, content.Components)
}

func (s *Simulator) findTemplate(waba, name, language string) *Template {
	for i := range s.cfg.Templates {
		t := &s.cfg.Templates[i]
		usable := t.Status == "" || t.Status == "APPROVED" || t.Status == "PAUSED" || t.Status == "DISABLED"
		if t.WABAID == waba && t.Name == name && t.Language == language && usable {
			return t
		}
	}
	return nil
}

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

// getTemplates lists an account's templates, so that a set-up check can compare.
func (s *Simulator) getTemplates(w http.ResponseWriter, r *http.Request, _ *string) {
	waba := r.PathValue("id")
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	allowed := false
	for _, n := range s.cfg.Numbers {
		allowed = allowed || (n.WABAID == waba && n.AccessToken == token && token != "")
	}
	if !allowed {
		if token == "" {
			errNoToken.write(w)
			return
		}
		errUnknownObject(r.Method, waba).write(w)
		return
	}
	fault := s.set.Take(CallTemplates)
	if fault.Before(w, r) || fault.After(w, r) {
		return
	}
	type row struct {
		Name     string `json:"name"`
		Language string `json:"language"`
		Status   string `json:"status"`
		Category string `json:"category"`
	}
	rows := []row{}
	name := r.URL.Query().Get("name")
	for _, t := range s.cfg.Templates {
		if t.WABAID == waba && (name == "" || t.Name == name) {
			rows = append(rows, row{t.Name, t.Language, cmp.Or(t.Status, "APPROVED"), t.Category})
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"data": rows})
}
