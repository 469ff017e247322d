package meta

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"paythread/simulator/faults"
)

// registerControl puts the control calls on mux; see the package's comment.
func (s *Simulator) registerControl(mux *http.ServeMux) {
	mux.HandleFunc("GET /meta/templates", s.listTemplates)
	mux.HandleFunc("POST /meta/templates", faults.Control(s.controlTemplate))
	mux.HandleFunc("POST /meta/accounts", faults.Control(s.controlAccount))
	mux.HandleFunc("POST /meta/capabilities", faults.Control(s.controlCapability))
	mux.HandleFunc("POST /meta/numbers", faults.Control(s.controlNumber))
	mux.HandleFunc("POST /meta/preferences", faults.Control(s.controlPreference))
	mux.HandleFunc("POST /meta/customers", faults.Control(s.controlCustomer))
	mux.HandleFunc("POST /meta/echoes", faults.Control(s.controlEcho))
	mux.HandleFunc("POST /meta/errors", faults.Control(s.controlError))
	mux.HandleFunc("POST /meta/messages", faults.Control(s.controlMessage))
	mux.HandleFunc("POST /meta/batches", faults.Control(s.controlBatch))
	mux.HandleFunc("POST /meta/fields", faults.Control(s.controlField))
	mux.HandleFunc("POST /meta/habits", faults.Control(s.controlHabits))
}

// pickNumber finds a number by its id; an empty id means the only one.
func (s *Simulator) pickNumber(id string) (*Number, error) {
	if id == "" && len(s.cfg.Numbers) == 1 {
		return &s.cfg.Numbers[0], nil
	}
	if id == "" {
		return nil, faults.Wrong("number", "is missing: there is not exactly one")
	}
	i := slices.IndexFunc(s.cfg.Numbers, func(n Number) bool { return n.PhoneNumberID == id })
	if i < 0 {
		return nil, faults.Missing("number", "is no phone number id")
	}
	return &s.cfg.Numbers[i], nil
}

// pickAccount finds a business account by its id; an empty id means the only one.
func (s *Simulator) pickAccount(id string) (string, error) {
	switch {
	case s.accounts[id] != nil: // the keys never change after New
		return id, nil
	case id == "" && len(s.accounts) == 1:
		return s.cfg.Numbers[0].WABAID, nil
	case id == "":
		return "", faults.Wrong("account", "is missing: there is not exactly one")
	}
	return "", faults.Missing("account", "is no WABA id")
}

// pickPhone reads a customer's number, with or without its +.
func pickPhone(field, number string) (string, error) {
	number = "+" + strings.TrimPrefix(number, "+")
	if !e164.MatchString(number) {
		return "", faults.Wrong(field, "must be a phone number with its country code")
	}
	return number, nil
}

// templateState is a template as the control calls show it.
type templateState struct {
	Account  string `json:"account"`
	Name     string `json:"name"`
	Language string `json:"language"`
	Status   string `json:"status"`
	Category string `json:"category"`
	Quality  string `json:"quality"`
	Reason   string `json:"reason,omitempty"`
	Hold     bool   `json:"hold"`
}

func (t *Template) state() templateState {
	return templateState{t.WABAID, t.Name, t.Language, t.Status, t.Category, t.Quality, t.Reason, t.Hold}
}

func (s *Simulator) listTemplates(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	states := []templateState{}
	for _, t := range s.templates {
		states = append(states, t.state())
	}
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"templates": states})
}

func (s *Simulator) controlTemplate(_ *http.Request, in struct {
	Account  string `json:"account"`
	Name     string `json:"name"`
	Language string `json:"language"`
	Event    string `json:"event"`
	Reason   string `json:"reason"`
	Title    string `json:"title"`
	Quality  string `json:"quality"`
	Category string `json:"category"`
	Hold     *bool  `json:"hold"`
}) (any, error) {
	waba, err := s.pickAccount(in.Account)
	if err != nil {
		return nil, err
	}
	t, found := s.ChangeTemplate(TemplateEvent{waba, in.Name, in.Language, strings.ToUpper(in.Event), in.Reason, in.Title,
		strings.ToUpper(in.Quality), strings.ToUpper(in.Category), in.Hold})
	if !found {
		return nil, faults.Missing("name", "is no template of this account and language")
	}
	return t.state(), nil
}

func (s *Simulator) controlAccount(_ *http.Request, in struct {
	Account     string `json:"account"`
	Event       string `json:"event"`
	Restriction string `json:"restriction"`
	For         string `json:"for"`
	State       string `json:"state"`
	Violation   string `json:"violation"`
}) (any, error) {
	waba, err := s.pickAccount(in.Account)
	if err != nil {
		return nil, err
	}
	e := AccountEvent{Account: waba, Event: in.Event, Restriction: in.Restriction, State: in.State, Violation: in.Violation}
	if in.Event == "" {
		return nil, faults.Wrong("event", "is missing")
	}
	if in.For != "" {
		if e.For, err = time.ParseDuration(in.For); err != nil || e.For <= 0 {
			return nil, faults.Wrong("for", "must be a duration such as 24h")
		}
	}
	s.ChangeAccount(e)
	return nil, nil
}

func (s *Simulator) controlCapability(_ *http.Request, in struct {
	Account string          `json:"account"`
	Limit   json.RawMessage `json:"limit"`
}) (any, error) {
	waba, err := s.pickAccount(in.Account)
	if err != nil {
		return nil, err
	}
	if len(in.Limit) == 0 {
		return nil, faults.Wrong("limit", "is missing")
	}
	s.TellCapability(waba, in.Limit)
	return nil, nil
}

func (s *Simulator) controlNumber(_ *http.Request, in struct {
	Number  string `json:"number"`
	Event   string `json:"event"`
	Limit   any    `json:"limit"`
	Quality string `json:"quality"`
}) (any, error) {
	n, err := s.pickNumber(in.Number)
	if err != nil {
		return nil, err
	}
	if in.Event == "" {
		return nil, faults.Wrong("event", "is missing")
	}
	s.TellQuality(n, in.Event, strings.ToUpper(in.Quality), in.Limit)
	return nil, nil
}

// customerIn names a customer and a number.
type customerIn struct {
	Number string `json:"number"`
	Phone  string `json:"phone"`
}

func (s *Simulator) pickCustomer(in customerIn) (*Number, string, error) {
	n, err := s.pickNumber(in.Number)
	if err != nil {
		return nil, "", err
	}
	phone, err := pickPhone("phone", in.Phone)
	return n, phone, err
}

func (s *Simulator) controlPreference(_ *http.Request, in struct {
	customerIn
	Value string `json:"value"`
}) (any, error) {
	n, phone, err := s.pickCustomer(in.customerIn)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"stop", "resume", "signup"}, in.Value) {
		return nil, faults.Wrong("value", "must be stop, resume or signup")
	}
	s.SetPreference(n, phone, in.Value)
	return nil, nil
}

func (s *Simulator) controlCustomer(_ *http.Request, in struct {
	customerIn
	Do string `json:"do"`
	To string `json:"to"`
}) (any, error) {
	n, phone, err := s.pickCustomer(in.customerIn)
	if err != nil {
		return nil, err
	}
	switch in.Do {
	case "user_id":
		return map[string]string{"user_id": s.ChangeUserID(n, phone)}, nil
	case "number":
		moved, err := pickPhone("to", in.To)
		if err != nil {
			return nil, err
		}
		s.ChangeNumber(n, phone, moved)
		return nil, nil
	case "identity":
		return map[string]string{"hash": s.ChangeIdentity(n, phone)}, nil
	case "acknowledge":
		if !s.Acknowledge(n, phone) {
			return nil, &faults.InputError{Status: http.StatusConflict, Field: "phone", Reason: "has not changed its identity"}
		}
		return nil, nil
	}
	return nil, faults.Wrong("do", "must be user_id, number, identity or acknowledge")
}

func (s *Simulator) controlEcho(_ *http.Request, in struct {
	customerIn
	Text string `json:"text"`
}) (any, error) {
	n, phone, err := s.pickCustomer(in.customerIn)
	if err != nil {
		return nil, err
	}
	if in.Text == "" {
		return nil, faults.Wrong("text", "is missing")
	}
	return map[string]string{"id": s.Echo(n, phone, in.Text)}, nil
}

func (s *Simulator) controlError(_ *http.Request, in struct {
	Number  string `json:"number"`
	Code    *int   `json:"code"`
	Details string `json:"details"`
}) (any, error) {
	n, err := s.pickNumber(in.Number)
	if err != nil {
		return nil, err
	}
	if in.Code == nil {
		return nil, faults.Wrong("code", "is missing")
	}
	s.TellError(n, *in.Code, in.Details)
	return nil, nil
}

func (s *Simulator) controlMessage(_ *http.Request, in struct {
	customerIn
	Message map[string]json.RawMessage `json:"message"`
}) (any, error) {
	n, phone, err := s.pickCustomer(in.customerIn)
	if err != nil {
		return nil, err
	}
	if len(in.Message["type"]) == 0 {
		return nil, faults.Wrong("message", "needs a type")
	}
	for _, name := range []string{"id", "from", "from_user_id", "timestamp"} {
		if in.Message[name] != nil {
			return nil, faults.Wrong("message."+name, "is Meta's to give")
		}
	}
	said := Said{ID: NewID(), From: phone, To: n.DisplayNumber, Content: in.Message}
	return map[string]string{"id": said.ID}, s.Say(said)
}

func (s *Simulator) controlBatch(r *http.Request, in struct {
	Number  string `json:"number"`
	Updates int    `json:"updates"`
	Bytes   int    `json:"bytes"`
	Spoil   bool   `json:"spoil"`
	Twice   bool   `json:"twice"`
}) (any, error) {
	n, err := s.pickNumber(in.Number)
	switch {
	case err != nil:
		return nil, err
	case in.Updates < 1 || in.Updates > mostUpdates:
		return nil, faults.Wrong("updates", "must be 1 to %d", mostUpdates)
	case in.Bytes < 0 || in.Bytes > longestPost:
		return nil, faults.Wrong("bytes", "must be at most %d", longestPost)
	}
	sent, err := s.SendBatch(r.Context(), Batch{n.PhoneNumberID, in.Updates, in.Bytes, in.Spoil, in.Twice})
	if errors.Is(err, ErrNoSuchNumber) {
		return nil, faults.Missing("number", "has no webhook")
	}
	return sent, err
}

func (s *Simulator) controlField(_ *http.Request, in struct {
	Account string          `json:"account"`
	Field   string          `json:"field"`
	Value   json.RawMessage `json:"value"`
}) (any, error) {
	waba, err := s.pickAccount(in.Account)
	switch {
	case err != nil:
		return nil, err
	case in.Field == "":
		return nil, faults.Wrong("field", "is missing")
	case len(in.Value) == 0:
		return nil, faults.Wrong("value", "is missing")
	}
	s.announce(waba, in.Field, in.Value)
	return nil, nil
}

func (s *Simulator) controlHabits(_ *http.Request, in habitsIn) (any, error) {
	h, err := in.apply(s.Habits())
	if err != nil {
		return nil, err
	}
	s.SetHabits(h)
	return map[string]any{"skipDeliveredEvery": h.SkipDeliveredEvery, "statusFirstEvery": h.StatusFirstEvery, "batch": h.Batch.String(),
		"spoilEvery": h.SpoilEvery, "refuseOutsideWindow": h.RefuseOutsideWindow, "payload": h.Payload}, nil
}

// batchCustomer is the number of the i-th customer of a batch.
func batchCustomer(i int) string { return fmt.Sprintf("+1650555%04d", i) }
