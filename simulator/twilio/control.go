package twilio

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"paythread/simulator/faults"
)

// registerControl puts the control calls on mux; see the package's comment.
func (s *Simulator) registerControl(mux *http.ServeMux) {
	mux.HandleFunc("GET /twilio/contents", s.listApprovals)
	mux.HandleFunc("POST /twilio/contents", faults.Control(s.controlContent))
	mux.HandleFunc("POST /twilio/accounts", faults.Control(s.controlAccount))
	mux.HandleFunc("POST /twilio/messages", faults.Control(s.controlMessage))
	mux.HandleFunc("POST /twilio/webhooks", faults.Control(s.controlWebhooks))
}

// pickAccount finds an account by its SID; an empty one means the only one.
func (s *Simulator) pickAccount(sid string) (*Account, error) {
	if sid == "" && len(s.cfg.Accounts) == 1 {
		return &s.cfg.Accounts[0], nil
	}
	if sid == "" {
		return nil, faults.Wrong("account", "is missing: there is not exactly one")
	}
	i := slices.IndexFunc(s.cfg.Accounts, func(a Account) bool { return a.SID == sid })
	if i < 0 {
		return nil, faults.Missing("account", "is no account's SID")
	}
	return &s.cfg.Accounts[i], nil
}

// approval is a template as the control calls show it.
type approval struct {
	Account  string `json:"account"`
	SID      string `json:"sid"`
	Name     string `json:"name"`
	Language string `json:"language"`
	Status   string `json:"status"`
	Reason   string `json:"reason,omitempty"`
}

func (s *Simulator) listApprovals(w http.ResponseWriter, _ *http.Request) {
	rows := []approval{}
	s.mu.Lock()
	for _, a := range s.cfg.Accounts {
		for _, c := range a.Contents {
			now := s.contents[contentKey{a.SID, c.SID}]
			rows = append(rows, approval{a.SID, now.SID, now.Name, now.Language, now.Status, now.Reason})
		}
	}
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"contents": rows})
}

func (s *Simulator) controlContent(_ *http.Request, in struct {
	Account string `json:"account"`
	SID     string `json:"sid"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
}) (any, error) {
	a, err := s.pickAccount(in.Account)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(approvals, in.Status):
		return nil, faults.Wrong("status", "must be one of %s", strings.Join(approvals, ", "))
	case !s.SetApproval(a.SID, in.SID, in.Status, in.Reason):
		return nil, faults.Missing("sid", "is no template of this account")
	}
	return nil, nil
}

func (s *Simulator) controlAccount(_ *http.Request, in struct {
	Account   string `json:"account"`
	Suspended bool   `json:"suspended"`
}) (any, error) {
	a, err := s.pickAccount(in.Account)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inactive[a.SID] = in.Suspended
	return nil, nil
}

func (s *Simulator) controlMessage(_ *http.Request, in struct {
	Channel    string            `json:"channel"`
	From       string            `json:"from"`
	To         string            `json:"to"`
	Text       string            `json:"text"`
	Parameters map[string]string `json:"parameters"`
}) (any, error) {
	if !e164.MatchString(in.From) {
		return nil, faults.Wrong("from", "must be a phone number such as +16505551234")
	}
	said := Said{ID: NewID(), Channel: in.Channel, From: in.From, To: in.To, Text: in.Text, Parameters: url.Values{}}
	for name, value := range in.Parameters {
		said.Parameters.Set(name, value)
	}
	if err := s.Say(said); errors.Is(err, ErrNoSuchNumber) {
		return nil, faults.Missing("to", "is no number on this channel")
	}
	return map[string]string{"id": said.ID}, nil
}

func (s *Simulator) controlWebhooks(_ *http.Request, in Habits) (any, error) {
	if !slices.Contains([]string{"", PortAdd, PortDrop, PortAlternate}, in.Port) {
		return nil, faults.Wrong("port", "must be add, drop or alternate")
	}
	s.SetHabits(in)
	return nil, nil
}
