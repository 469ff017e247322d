package clickatell

import (
	"net/http"
	"slices"

	"paythread/simulator/faults"
)

// Change is what can be changed of a running integration; a member that is
// missing stays as it is.
type Change struct {
	Balance   *float64 `json:"balance"` // without any, sends are refused with 20
	Callbacks *string  `json:"callbacks"`
	Charset   *string  `json:"charset"`
}

// registerControl puts the control calls on mux; see the package's comment.
func (s *Simulator) registerControl(mux *http.ServeMux) {
	mux.HandleFunc("POST /clickatell/integrations/{integration}", faults.Control(func(r *http.Request, c Change) (any, error) {
		return nil, s.Change(r.PathValue("integration"), c)
	}))
}

// Change changes a running integration whole. A *faults.InputError says what is
// wrong; then nothing has changed.
func (s *Simulator) Change(integrationID string, c Change) error {
	a := s.account(integrationID)
	switch {
	case a == nil:
		return faults.Missing("integration", "is not the id of one")
	case c.Balance != nil && *c.Balance < 0:
		return faults.Wrong("balance", "must not be negative")
	case c.Callbacks != nil && *c.Callbacks != OneAPI && *c.Callbacks != Legacy:
		return faults.Wrong("callbacks", "must be one_api or legacy")
	case c.Charset != nil && (*c.Charset == "" || !slices.Contains(charsets, *c.Charset)):
		return faults.Wrong("charset", "must be UTF-8, UTF-16BE or ISO-8859-1")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&a.balance, c.Balance)
	set(&a.callbacks, c.Callbacks)
	set(&a.charset, c.Charset)
	return nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}
